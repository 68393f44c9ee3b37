using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>What a sequence's past takes, in float32.</summary>
/// <param name="Fixed">Bytes at any length: sums, windows, and the rows since the last block boundary where they are most.</param>
/// <param name="PerToken">Bytes more with every token; 0 where the state does not grow.</param>
internal readonly record struct StateSize(long Fixed, long PerToken)
{
    public static StateSize Of(IEnumerable<AttentionSpec> layers)
    {
        long always = 0, perToken = 0;
        foreach (AttentionSpec spec in layers)
        {
            foreach (StateField field in Attentions.Find(spec.Attention)!.Fields(spec))
            {
                long row = (long)field.Heads * field.Width * sizeof(float);
                if (field.Rows == FieldRows.Past) perToken += row;
                else always += row * field.RowsAt(spec.BlockLength - 1, spec.BlockLength);
            }
        }

        return new StateSize(always, perToken);
    }

    public long At(long tokens) => Fixed + PerToken * tokens;
}
