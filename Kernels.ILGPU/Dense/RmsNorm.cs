using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, float, Rows, int>? _rmsNorm;

    /// <inheritdoc/>
    protected override void RmsNormCore(DeviceTensor input, DeviceTensor gain, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _rmsNorm, RmsNormKernel)(
            Stream, RowGroups(output.Rows, output.RowLength), Floats(input, 0), Floats(gain, 1), epsilon, Output(output), output.RowLength);
    }

    // A group a row.
    private static void RmsNormKernel(Rows input, Rows gain, float epsilon, Rows output, int rowLength)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Most);
        int row = Grid.IdxX;
        float squares = 0;
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) squares = Fused.MultiplyAdd(input[row, c], input[row, c], squares);
        float root = XMath.Sqrt(RowGroup.Sum(shared, squares) / rowLength + epsilon);
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) output[row, c] = input[row, c] / root * gain[c, 0];
    }
}
