using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void ArgMaxCore(DeviceTensor logits, DeviceTensor tokens)
    {
        ArgumentNullException.ThrowIfNull(logits);
        for (int i = 0; i < logits.Rows; i++) Store(tokens, i, [Largest(Row(logits, i))]);
    }

    /// <summary>The lowest index of the largest number; the first NaN where there is one.</summary>
    private static int Largest(double[] row)
    {
        int best = 0;
        for (int c = 0; c < row.Length; c++)
        {
            if (double.IsNaN(row[c])) return c;
            if (row[c] > row[best]) best = c;
        }

        return best;
    }
}
