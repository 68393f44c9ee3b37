using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, ArrayView<int>, long, int, int>? _topK;

    /// <inheritdoc/>
    protected override void TopKCore(DeviceTensor logits, DeviceTensor values, DeviceTensor indices)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(values);
        ArgumentNullException.ThrowIfNull(indices);
        if (values.Count == 0) return;
        Load(ref _topK, TopKKernel)(
            Stream, SearchGroups(logits.Rows, logits.RowLength), Floats(logits, 0), Output(values), Elements<int>(indices), indices.RowStride, logits.RowLength, values.RowLength);
        NoteIndices(indices, logits.RowLength);
    }

    // A group a row; each pass finds the first in order behind the one found last.
    private static void TopKKernel(Rows logits, Rows values, ArrayView<int> indices, long stride, int columns, int k)
    {
        ArrayView<float> sharedValues = SharedMemory.Allocate<float>(RowGroup.Most);
        ArrayView<int> sharedIndices = SharedMemory.Allocate<int>(RowGroup.Most);
        int row = Grid.IdxX, last = -1;
        float lastValue = 0;
        for (int i = 0; i < k; i++)
        {
            int best = -1;
            float largest = 0;
            for (int c = Group.IdxX; c < columns; c += Group.DimX)
            {
                float x = logits[row, c];
                if (last >= 0 && !Ranking.IsBefore(lastValue, last, x, c)) continue;
                if (best >= 0 && !Ranking.IsBefore(x, c, largest, best)) continue;
                best = c;
                largest = x;
            }

            last = Ranking.First(sharedValues, sharedIndices, largest, best);
            lastValue = logits[row, last];
            if (Group.IdxX == 0)
            {
                values[row, i] = lastValue;
                indices[row * stride + i] = last;
            }
        }
    }
}
