using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, Rows, Rows, Rows, int>? _add;

    /// <inheritdoc/>
    protected override void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _add, AddKernel)(
            Stream, Threads(output.Count), Floats(left, 0), Floats(right, 1), Output(output), output.RowLength);
    }

    // One thread an element.
    private static void AddKernel(Index1D index, Rows left, Rows right, Rows output, int rowLength)
    {
        int row = index / rowLength, column = index % rowLength;
        output[row, column] = left[row, column] + right[row, column];
    }
}
