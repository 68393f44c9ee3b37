using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void LogProbabilityCore(DeviceTensor logits, DeviceTensor tokens, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(logits);
        int[] ids = Integers(tokens);
        foreach (int id in ids)
            if ((uint)id >= (uint)logits.RowLength) throw new ArgumentException($"tokens: expected 0 to {logits.RowLength - 1}, got {id}", nameof(tokens));
        for (int i = 0; i < ids.Length; i++)
        {
            double[] row = Row(logits, i);
            double largest = row.Max(), total = 0;
            foreach (double x in row) total += Math.Exp(x - largest);
            Store(output, i, [row[ids[i]] - largest - Math.Log(total)]);
        }
    }
}
