namespace Treeline.Cli.Comparison;

/// <summary>What a model gave on one backend: the hidden state after each layer and the logits of some tokens, and a greedy text after them.</summary>
internal sealed class ModelRun
{
    /// <summary>The residual stream after each layer, <c>[tokens, hidden]</c> each.</summary>
    public required float[][] Layers { get; init; }

    /// <summary><c>[tokens, vocabulary]</c>.</summary>
    public required float[] Logits { get; init; }

    /// <summary>The greedy continuation.</summary>
    public required int[] Text { get; init; }

    /// <summary>Between the two best logits that each of its tokens was chosen from.</summary>
    public required IReadOnlyList<float> Margins { get; init; }

    /// <param name="model">The model.</param>
    /// <param name="ids">The tokens to feed and to continue.</param>
    /// <param name="count">How many to continue them with; fewer where the model has no more positions.</param>
    /// <param name="cancellation">Looked at between steps.</param>
    public static ModelRun Of(CausalModel model, int[] ids, int count, CancellationToken cancellation)
    {
        var layers = new float[model.AttentionSpecs.Count][];
        model.AfterLayer = (layer, stream) => layers[layer] = model.Backend.Download<float>(stream);
        float[] logits;
        try
        {
            logits = ModelPass.Logits(model, ids, stepwise: false, progress: null, cancellation);
        }
        finally
        {
            model.AfterLayer = null;
        }

        var margins = new MarginReader();
        int[] text = Continue(model, ids, new GenerationOptions { MaxTokens = count, StopTokens = [], Processors = [margins] }, cancellation);
        return new ModelRun { Layers = layers, Logits = logits, Text = text, Margins = margins.Margins };
    }

    private static int[] Continue(CausalModel model, int[] ids, GenerationOptions options, CancellationToken cancellation)
    {
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 1, Capacity = (int)Math.Min(model.MaxPositions, (long)ids.Length + options.MaxTokens) });
        using Sequence sequence = batch.Add(ids, options);
        while (batch.Step(cancellation)) { }
        return sequence.Error is { } error ? throw error : sequence.Generated.ToArray();
    }

    /// <summary>Edits nothing, notes the margin of each choice.</summary>
    private sealed class MarginReader : ILogitsProcessor
    {
        public List<float> Margins { get; } = [];

        public void Process(ReadOnlySpan<int> path, Span<float> logits)
        {
            float best = float.NegativeInfinity, second = float.NegativeInfinity;
            foreach (float logit in logits)
            {
                if (logit > best) (best, second) = (logit, best);
                else if (logit > second) second = logit;
            }

            Margins.Add(best - second);
        }
    }
}
