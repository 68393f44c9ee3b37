namespace Treeline.Kernels;

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override void FlashAdvance(in FlashCall call, StepEntry entry, int head, float* scratch)
    {
        FlashLayer layer = call.Layer;
        int group = call.Spec.GroupSize, stride = layer.ValueStride, position = layer.Owner.Length(entry.Slot);
        float* keys = layer.Keys(entry.Slot, head), values = layer.Values(entry.Slot, head);
        var work = new FlashScratch(call, scratch);
        LoadTaps(call, head, work.Taps);
        for (int token = entry.Offset, end = token + entry.Count; token < end;)
        {
            int row = position % group, count = Math.Min(group - row, end - token);
            for (int i = 0; i < count; i++)
            {
                if (layer.HasKeys) LoadKey(call, token + i, head, work.Row, keys, layer.KeyStride, row + i);
                LoadValue(call, token + i, head, values + (nint)(row + i) * stride);
            }

            float* state = call.Spec.Global && position >= group ? layer.State(entry.Slot, head) : null;
            for (int i = 0; i < count; i += call.ChunkTokens)
                AnswerInGroup(call, work, token + i, Math.Min(call.ChunkTokens, count - i), head, row + i, state, keys, values);
            if (row + count == group) FlashFold(layer, entry.Slot, head);
            token += count;
            position += count;
        }
    }

    /// <summary>Queries of consecutive tokens, rows <paramref name="row"/> and on of the current group; a row sees the rows up to itself.</summary>
    private void AnswerInGroup(in FlashCall call, in FlashScratch work, int token, int tokens, int head, int row, float* state, float* keys, float* values)
    {
        AttentionSpec spec = call.Spec;
        int heads = call.Heads, rows = tokens * heads, stride = call.Layer.ValueStride;
        if (call.Layer.HasKeys)
            for (int t = 0; t < tokens; t++) LoadQueries(call, token + t, head, work.Query + (nint)t * heads * call.QueryStride);

        if (spec.Local != LocalKind.None)
        {
            int columns = CpuLayer.Padded(row + tokens);
            Product(work.Query, call.QueryStride, keys, call.Layer.KeyStride, default(RowsInOrder), work.Scores, call.ScoreStride, rows, columns, spec.HeadDim, add: false);
            Weigh(spec.Local, work.Scores, call.ScoreStride, rows, columns);
            SumVisible(call, work, rows, row, values);
        }
        else
        {
            Clear(work.Local, (nint)rows * stride);
        }

        if (state != null) Product(work.Query, call.QueryStride, state, stride, default(RowsInOrder), work.Global, stride, rows, stride, spec.HeadDim, add: false);
        else Clear(work.Global, (nint)rows * stride);

        for (int t = 0; t < tokens; t++)
        {
            float* value = values + (nint)(row + t) * stride;
            nint first = (nint)t * heads * stride;
            if (spec.ConvTaps > 0) Product(work.Taps, spec.ConvTaps, value, -stride, default(RowsInOrder), work.Conv + first, stride, heads, stride, spec.ConvTaps, add: false);
            for (int r = 0; r < heads; r++)
            {
                nint at = first + (nint)r * stride;
                Join(call, work.Local + at, work.Global + at, work.Conv + at, value, call.Output(token + t, head * heads + r));
            }
        }
    }

    /// <summary>The local sums: four rows share the keys that the first of them sees; each goes on alone over the rest of its own.</summary>
    private static void SumVisible(in FlashCall call, in FlashScratch work, int rows, int row, float* values)
    {
        int stride = call.Layer.ValueStride;
        for (int i = 0; i < rows; i += 4)
        {
            int together = Math.Min(4, rows - i), shared = row + i / call.Heads + 1;
            float* weights = work.Scores + (nint)i * call.ScoreStride;
            float* sums = work.Local + (nint)i * stride;
            Product(weights, call.ScoreStride, values, stride, default(RowsInOrder), sums, stride, together, stride, shared, add: false);
            for (int r = 1; r < together; r++)
            {
                int more = row + (i + r) / call.Heads + 1 - shared;
                if (more > 0)
                    Product(weights + (nint)r * call.ScoreStride + shared, call.ScoreStride, values + (nint)shared * stride, stride, default(RowsInOrder), sums + (nint)r * stride, stride, 1, stride, more, add: true);
            }
        }
    }

    private static void Clear(float* to, nint floats) => new Span<float>(to, (int)floats).Clear();
}
