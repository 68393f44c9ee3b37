namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void SampleCore(DeviceTensor logits, ReadOnlySpan<SamplingRow> rows, DeviceTensor tokens)
    {
        ArgumentNullException.ThrowIfNull(logits);
        float* maxima = Threads.Shared(logits.Rows);
        ForRows(logits.Rows, logits.RowLength, new MaximumOp(this, logits, maxima));
        for (int i = 0; i < logits.Rows; i++)
        {
            if (float.IsNaN(maxima[i])) throw new ArgumentException($"logits: row {i} has NaN", nameof(logits));
            if (float.IsPositiveInfinity(maxima[i])) throw new ArgumentException($"logits: row {i} has +infinity", nameof(logits));
            if (float.IsNegativeInfinity(maxima[i])) throw new ArgumentException($"logits: row {i} has no finite number", nameof(logits));
        }

        fixed (SamplingRow* how = rows) ForRows(logits.Rows, logits.RowLength, new SampleOp(this, logits, maxima, how, new CpuIntegers(tokens)));
    }

    private readonly struct MaximumOp(CpuBackend backend, DeviceTensor logits, float* maxima) : IRowOp
    {
        private readonly CpuRows _logits = new(logits);

        public void Run(int row, int worker) =>
            maxima[row] = backend.Kernels.Max(_logits.Row(row, backend.Kernels, backend.Threads.Scratch(worker, _logits.Length)), _logits.Length);
    }

    private readonly struct SampleOp(CpuBackend backend, DeviceTensor logits, float* maxima, SamplingRow* rows, CpuIntegers tokens) : IRowOp
    {
        private readonly CpuRows _logits = new(logits);

        public void Run(int row, int worker)
        {
            int count = _logits.Length;
            float* scratch = backend.Threads.Scratch(worker, 3 * (nint)count);
            float* x = _logits.Row(row, backend.Kernels, scratch), weights = scratch + count;
            if (rows[row].Temperature == 0)
            {
                tokens[row] = Largest(x, maxima[row]);
                return;
            }

            backend.Weights(x, count, maxima[row], rows[row].Temperature, weights);
            int last = LastKept(x, weights, count, (int*)(scratch + 2 * (nint)count), rows[row]);
            tokens[row] = Walk(x, weights, count, last, rows[row]);
        }

        /// <summary>The last token, in the order of falling logits, that top-k and top-p keep; -1 where they keep all.</summary>
        private int LastKept(float* x, float* weights, int count, int* order, in SamplingRow how)
        {
            int k = how.TopK == 0 ? count : Math.Min(how.TopK, count);
            if (how.TopP == 1)
            {
                if (k == count) return -1;
                backend.Kernels.TopK(x, count, order, k);
                return order[k - 1];
            }

            double total = 0;
            if (k < count)
            {
                backend.Kernels.TopK(x, count, order, k);
                for (int i = 0; i < k; i++) total += weights[order[i]];
                double passed = weights[order[0]];
                int last = 0;
                while (last < k - 1 && passed < how.TopP * total) passed += weights[order[++last]];
                return order[last];
            }

            // All of them: taken from a heap one by one, so that only the few that make up p are sorted.
            for (int i = 0; i < count; i++) total += weights[i];
            for (int i = 0; i < count; i++) order[i] = i;
            for (int i = count / 2 - 1; i >= 0; i--) CpuKernels.SiftDown(x, order, count, i, firstOnTop: true);
            double reached = weights[order[0]];
            for (int left = count - 1; left > 0 && reached < how.TopP * total; left--)
            {
                order[0] = order[left];
                CpuKernels.SiftDown(x, order, left, 0, firstOnTop: true);
                reached += weights[order[0]];
            }

            return order[0];
        }

        /// <summary>Draws from the tokens kept, in the order of their ids.</summary>
        private static int Walk(float* x, float* weights, int count, int last, in SamplingRow how)
        {
            // The most probable token's weight is 1, so min-p compares with the weight itself.
            for (int i = 0; i < count; i++)
                if (weights[i] < how.MinP || (last >= 0 && CpuKernels.IsBefore(x, last, i))) weights[i] = 0;
            double total = 0, passed = 0;
            for (int i = 0; i < count; i++) total += weights[i];
            double stop = how.Uniform * total;
            int token = 0;
            for (int i = 0; i < count; i++)
            {
                if (weights[i] == 0) continue;
                token = i;                                  // the last one where rounding keeps the sum from passing
                passed += weights[i];
                if (passed > stop) break;
            }

            return token;
        }
    }
}
