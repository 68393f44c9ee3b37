using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void EmbeddingCore(DeviceTensor table, DeviceTensor ids, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(table);
        int[] rows = Integers(ids);
        foreach (int row in rows)
            if ((uint)row >= (uint)table.Rows) throw new ArgumentException($"ids: expected 0 to {table.Rows - 1}, got {row}", nameof(ids));
        for (int i = 0; i < rows.Length; i++) Store(output, i, Row(table, rows[i]));
    }
}
