using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, Rows, Rows, int>? _silu;

    /// <inheritdoc/>
    protected override void SiluCore(DeviceTensor input, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _silu, SiluKernel)(
            Stream, Threads(output.Count), Floats(input, 0), Output(output), output.RowLength);
    }

    // One thread an element.
    private static void SiluKernel(Index1D index, Rows input, Rows output, int rowLength)
    {
        int row = index / rowLength, column = index % rowLength;
        output[row, column] = Silu(input[row, column]);
    }

    private static float Silu(float x) => x / (1 + XMath.Exp(-x));
}
