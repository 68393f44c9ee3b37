using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>Feeds tokens to a model from an empty past and hands over what every row gives.</summary>
internal static class ModelPass
{
    /// <param name="model">The model.</param>
    /// <param name="ids">The tokens.</param>
    /// <param name="stepwise">True: one token at a time. False: all in one pass.</param>
    /// <param name="take">Receives the place of the first row, the number of rows, and their outputs, valid during the call.</param>
    /// <param name="progress">Told how many of how many tokens are done; null: nobody.</param>
    /// <param name="cancellation">Looked at between passes.</param>
    /// <exception cref="OutOfCapacityException">The model has fewer positions.</exception>
    public static void Run(CausalModel model, ReadOnlySpan<int> ids, bool stepwise, Action<int, int, ForwardOutput> take, Action<long, long>? progress, CancellationToken cancellation)
    {
        if (ids.IsEmpty) return;
        if (ids.Length > model.MaxPositions) throw new OutOfCapacityException($"ids: expected at most {model.MaxPositions} tokens, as many as the model has positions, got {ids.Length}");
        using AttentionState state = model.CreateState(slots: 1, ids.Length);
        var step = new Step();
        int count = stepwise ? 1 : ids.Length;
        for (int at = 0; at < ids.Length; at += count)
        {
            cancellation.ThrowIfCancellationRequested();
            step.Clear();
            step.Advance(slot: 0, count, LogitRows.All);
            take(at, count, model.Forward(state, step, ids.Slice(at, count)));
            progress?.Invoke(at + count, ids.Length);
        }
    }

    /// <summary>The logits of all tokens, <c>[tokens, vocabulary]</c>.</summary>
    /// <inheritdoc cref="Run"/>
    public static float[] Logits(CausalModel model, ReadOnlySpan<int> ids, bool stepwise, Action<long, long>? progress, CancellationToken cancellation)
    {
        int width = model.VocabularySize;
        float[] logits = New(ids.Length, width);
        Run(model, ids, stepwise, (first, count, output) => model.Backend.Read(output.Logits, logits.AsSpan(first * width, count * width)), progress, cancellation);
        return logits;
    }

    /// <summary>An array for some rows of the vocabulary's width.</summary>
    /// <exception cref="OutOfCapacityException">It would hold more numbers than an array can.</exception>
    public static float[] New(long rows, int width) => rows * width <= Array.MaxLength ? new float[rows * width]
        : throw new OutOfCapacityException($"{rows} rows of {width} logits are more numbers than one array holds ({Array.MaxLength}); give fewer tokens");
}
