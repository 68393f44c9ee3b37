using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, Rows, Rows, Rows, int>? _siluGate;

    /// <inheritdoc/>
    protected override void SiluGateCore(DeviceTensor gate, DeviceTensor up, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _siluGate, SiluGateKernel)(
            Stream, Threads(output.Count), Floats(gate, 0), Floats(up, 1), Output(output), output.RowLength);
    }

    // One thread an element.
    private static void SiluGateKernel(Index1D index, Rows gate, Rows up, Rows output, int rowLength)
    {
        int row = index / rowLength, column = index % rowLength;
        output[row, column] = Silu(gate[row, column]) * up[row, column];
    }
}
