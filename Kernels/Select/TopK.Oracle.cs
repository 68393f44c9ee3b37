using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void TopKCore(DeviceTensor logits, DeviceTensor values, DeviceTensor indices)
    {
        ArgumentNullException.ThrowIfNull(logits);
        for (int i = 0; i < logits.Rows; i++)
        {
            double[] row = Row(logits, i);
            int[] best = Descending(row)[..values.RowLength];
            Store(values, i, Array.ConvertAll(best, c => row[c]));
            Store(indices, i, best);
        }
    }

    /// <summary>Indices by falling number; among equals the lowest first, NaN before everything so that it is seen.</summary>
    private static int[] Descending(double[] row) =>
        [.. Enumerable.Range(0, row.Length).OrderByDescending(c => double.IsNaN(row[c])).ThenByDescending(c => row[c]).ThenBy(c => c)];
}
