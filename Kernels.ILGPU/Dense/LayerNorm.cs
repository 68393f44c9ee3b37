using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, Rows, float, Rows, int>? _layerNorm;

    /// <inheritdoc/>
    protected override void LayerNormCore(DeviceTensor input, DeviceTensor gain, DeviceTensor bias, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _layerNorm, LayerNormKernel)(
            Stream, RowGroups(output.Rows, output.RowLength), Floats(input, 0), Floats(gain, 1), Floats(bias, 2), epsilon, Output(output), output.RowLength);
    }

    // A group a row.
    private static void LayerNormKernel(Rows input, Rows gain, Rows bias, float epsilon, Rows output, int rowLength)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Most);
        int row = Grid.IdxX;
        float sum = 0, rest = 0, squares = 0;
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) sum += input[row, c];
        float mean = RowGroup.Sum(shared, sum) / rowLength;
        // The mean twice: what rounding left of a large one is small, and is taken off too.
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) rest += input[row, c] - mean;
        rest = RowGroup.Sum(shared, rest) / rowLength;
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) squares = Fused.MultiplyAdd((input[row, c] - mean - rest), (input[row, c] - mean - rest), squares);
        float deviation = XMath.Sqrt(RowGroup.Sum(shared, squares) / rowLength + epsilon);
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) output[row, c] = (input[row, c] - mean - rest) / deviation * gain[c, 0] + bias[c, 0];
    }
}
