using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<int>, long, int>? _argMax;

    /// <inheritdoc/>
    protected override void ArgMaxCore(DeviceTensor logits, DeviceTensor tokens)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(tokens);
        if (logits.Rows == 0) return;
        ArgMax(Floats(logits, 0), logits.Rows, logits.RowLength, Elements<int>(tokens), tokens.RowStride);
        NoteIndices(tokens, logits.RowLength);
    }

    private void ArgMax(Rows logits, int rows, int columns, ArrayView<int> tokens, long stride) =>
        Load(ref _argMax, ArgMaxKernel)(Stream, SearchGroups(rows, columns), logits, tokens, stride, columns);

    // A group a row.
    private static void ArgMaxKernel(Rows logits, ArrayView<int> tokens, long stride, int columns)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(RowGroup.Most);
        ArrayView<int> indices = SharedMemory.Allocate<int>(RowGroup.Most);
        int row = Grid.IdxX, best = -1;
        float largest = 0;
        for (int c = Group.IdxX; c < columns; c += Group.DimX)
        {
            float x = logits[row, c];
            if (best >= 0 && !Ranking.IsBefore(x, c, largest, best)) continue;
            best = c;
            largest = x;
        }

        best = Ranking.First(values, indices, largest, best);
        if (Group.IdxX == 0) tokens[row * stride] = best;
    }
}
