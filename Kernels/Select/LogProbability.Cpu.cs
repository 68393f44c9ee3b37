namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void LogProbabilityCore(DeviceTensor logits, DeviceTensor tokens, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(tokens);
        RequireIndices(tokens, logits.RowLength, nameof(tokens));
        ForRows(logits.Rows, logits.RowLength, new LogProbabilityOp(this, logits, new CpuIntegers(tokens), new CpuRows(output)));
    }

    private readonly struct LogProbabilityOp(CpuBackend backend, DeviceTensor logits, CpuIntegers tokens, CpuRows output) : IRowOp
    {
        private readonly CpuRows _logits = new(logits);

        public void Run(int row, int worker)
        {
            int count = _logits.Length;
            float* scratch = backend.Threads.Scratch(worker, 2 * (nint)count);
            float* x = _logits.Row(row, backend.Kernels, scratch), weights = scratch + count;
            float max = backend.Kernels.Max(x, count);
            float total = backend.Weights(x, count, max, 1, weights);
            *output.Row(row, backend.Kernels, null) = (float)((double)x[tokens[row]] - max - Math.Log(total));
        }
    }

    /// <summary>exp((x - max) / temperature) of each number; returns their sum.</summary>
    private float Weights(float* x, int count, float max, float temperature, float* weights)
    {
        Kernels.Map(new ExpOf(max, temperature), x, x, x, weights, count);
        return Kernels.Sum(weights, count);
    }
}
