using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, int>? _softmax;

    /// <inheritdoc/>
    protected override void SoftmaxCore(DeviceTensor input, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Load(ref _softmax, SoftmaxKernel)(Stream, RowGroups(output.Rows, output.RowLength), Floats(input, 0), Output(output), output.RowLength);
    }

    // A group a row; a thread writes the columns that it alone has read.
    private static void SoftmaxKernel(Rows input, Rows output, int rowLength)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Most);
        int row = Grid.IdxX;
        float largest = float.NegativeInfinity, sum = 0;
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) largest = RowGroup.Larger(largest, input[row, c]);
        largest = RowGroup.Max(shared, largest);
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX)
        {
            float weight = XMath.Exp(input[row, c] - largest);
            output[row, c] = weight;
            sum += weight;
        }

        sum = RowGroup.Sum(shared, sum);
        for (int c = Group.IdxX; c < rowLength; c += Group.DimX) output[row, c] /= sum;
    }
}
