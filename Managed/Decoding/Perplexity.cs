using Treeline.Kernels;

namespace Treeline;

/// <summary>How well a model predicts a text.</summary>
/// <param name="Nats">Sum of -log p over the predicted tokens.</param>
/// <param name="Tokens">Number of predicted tokens: all but the first of each window.</param>
/// <param name="Windows">Pieces of the text that were read from an empty past: 1, more where the text is longer than the model has positions.</param>
public sealed record PerplexityResult(double Nats, long Tokens, int Windows)
{
    /// <summary>exp(nats / tokens).</summary>
    public double Value => Math.Exp(Nats / Tokens);
}

/// <summary>Perplexity of a text under a model.</summary>
public static class Perplexity
{
    /// <summary>Feeds a text in chunks and sums the log-probability of each token after all before it.</summary>
    /// <param name="model">The model.</param>
    /// <param name="text">The text's tokens, at least two. Where it is longer than the model has positions, it is cut into windows that each begin anew.</param>
    /// <param name="chunk">Tokens fed at a time; on a backend that is lossless to the bit it changes nothing.</param>
    /// <param name="progress">Receives the number of tokens fed so far.</param>
    /// <param name="cancellation">Looked at between chunks.</param>
    /// <exception cref="ArgumentException">The text has fewer than two tokens, or one outside the vocabulary.</exception>
    public static PerplexityResult Compute(CausalModel model, ReadOnlySpan<int> text, int chunk = 128, IProgress<int>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentOutOfRangeException.ThrowIfLessThan(chunk, 1);
        if (text.Length < 2) throw new ArgumentException($"text: expected at least two tokens, got {text.Length}", nameof(text));
        foreach (int token in text)
            if ((uint)token >= (uint)model.VocabularySize) throw new ArgumentException($"text: expected tokens from 0 to {model.VocabularySize - 1}, got {token}", nameof(text));
        KernelBackend backend = model.Backend;
        int window = Math.Min(text.Length, model.MaxPositions), windows = 0;
        if (window < 2) throw new ArgumentException($"model: expected at least two positions, got {window}", nameof(model));
        chunk = Math.Min(chunk, window);
        using AttentionState state = model.CreateState(1, window);
        using DeviceTensor targets = backend.Allocate(ElementType.Int32, chunk), scores = backend.Allocate(ElementType.Float32, chunk);
        var step = new Step();
        var host = new float[chunk];
        var next = new int[chunk];
        double nats = 0;
        long scored = 0;
        for (int start = 0; text.Length - start > 1; start += window)
        {
            int length = Math.Min(window, text.Length - start);
            state.Reset(0);
            windows++;
            for (int at = 0; at < length - 1; at += chunk)
            {
                cancellation.ThrowIfCancellationRequested();
                int n = Math.Min(chunk, length - 1 - at);   // the window's last token predicts nothing
                step.Clear();
                step.Advance(0, n, LogitRows.All);
                ForwardOutput output = model.Forward(state, step, text.Slice(start + at, n));
                text.Slice(start + at + 1, n).CopyTo(next);
                backend.Write<int>(targets.First(n), next.AsSpan(0, n));
                backend.LogProbability(output.Logits, targets.First(n), scores.First(n));
                backend.Read(scores.First(n), host.AsSpan(0, n));
                foreach (float score in host.AsSpan(0, n)) nats -= score;
                scored += n;
                progress?.Report(start + at + n);
            }
        }

        return new PerplexityResult(nats, scored, windows);
    }
}
