namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void TopKCore(DeviceTensor logits, DeviceTensor values, DeviceTensor indices)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ForRows(logits.Rows, logits.RowLength, new TopKOp(this, logits, values, indices));
    }

    private readonly struct TopKOp(CpuBackend backend, DeviceTensor logits, DeviceTensor values, DeviceTensor indices) : IRowOp
    {
        private readonly CpuRows _logits = new(logits);
        private readonly float* _values = values.Pointer<float>();
        private readonly nint _valueStride = (nint)values.RowStride;
        private readonly int* _indices = indices.Pointer<int>();
        private readonly nint _indexStride = (nint)indices.RowStride;
        private readonly int _k = values.RowLength;

        public void Run(int row, int worker)
        {
            if (_k == 0) return;
            float* x = _logits.Row(row, backend.Kernels, backend.Threads.Scratch(worker, _logits.Length));
            int* best = _indices + row * _indexStride;
            backend.Kernels.TopK(x, _logits.Length, best, _k);
            for (int i = 0; i < _k; i++) _values[row * _valueStride + i] = x[best[i]];
        }
    }
}

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Indices of the k largest of n numbers, best first: falling numbers, among equals the lowest index, NaN before everything.</summary>
    public abstract void TopK(float* x, int n, int* best, int k);

    /// <summary>True where the number at index a comes before the one at index b.</summary>
    public static bool IsBefore(float* x, int a, int b)
    {
        float left = x[a], right = x[b];
        if (float.IsNaN(left) || float.IsNaN(right)) return float.IsNaN(left) && (!float.IsNaN(right) || a < b);
        return left > right || (left == right && a < b);
    }

    /// <summary>Restores a heap below one of its places; its first place holds the one that comes last, or with <paramref name="firstOnTop"/> first.</summary>
    public static void SiftDown(float* x, int* heap, int count, int place, bool firstOnTop)
    {
        int moved = heap[place];
        while (true)
        {
            int child = 2 * place + 1;
            if (child >= count) break;
            if (child + 1 < count && IsBefore(x, heap[child + 1], heap[child]) == firstOnTop) child++;
            if (IsBefore(x, moved, heap[child]) == firstOnTop) break;
            heap[place] = heap[child];
            place = child;
        }

        heap[place] = moved;
    }
}

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override void TopK(float* x, int n, int* best, int k)
    {
        // A heap of the best so far, the worst of them on top; a stretch of numbers none of which beats it is passed over as a whole.
        const int Stretch = 64;
        for (int i = 0; i < k; i++) best[i] = i;
        for (int i = k / 2 - 1; i >= 0; i--) SiftDown(x, best, k, i, firstOnTop: false);
        for (int start = k; start < n; start += Stretch)
        {
            int count = Math.Min(Stretch, n - start);
            if (Max(x + start, count) <= x[best[0]]) continue;
            for (int i = start; i < start + count; i++)
            {
                if (!IsBefore(x, i, best[0])) continue;
                best[0] = i;
                SiftDown(x, best, k, 0, firstOnTop: false);
            }
        }

        for (int last = k - 1; last > 0; last--)
        {
            (best[0], best[last]) = (best[last], best[0]);
            SiftDown(x, best, last, 0, firstOnTop: false);
        }
    }
}
