using System.Runtime.CompilerServices;

namespace Treeline;

/// <summary>One text from a model: the short way. <see cref="DecodingBatch"/> is the long one.</summary>
public static class Generation
{
    /// <summary>Continues a prompt; gives text as it comes, whole characters only.</summary>
    /// <param name="model">A model with a tokenizer.</param>
    /// <param name="prompt">The text to continue, not empty.</param>
    /// <param name="options">How; null: greedy, 256 tokens.</param>
    /// <param name="statistics">Called once at the end, or where the caller stops reading, with what was done; null: nobody.</param>
    /// <param name="cancellation">Looked at between steps.</param>
    /// <exception cref="ArgumentException">The prompt is empty, or an option does not fit; nothing has been computed.</exception>
    /// <exception cref="Kernels.OutOfCapacityException">The prompt is longer than the model takes; nothing has been computed.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static IEnumerable<string> Generate(this CausalModel model, string prompt, GenerationOptions? options = null,
        Action<DecodingStatistics>? statistics = null, CancellationToken cancellation = default)
    {
        int[] tokens = model.EncodePrompt(prompt);
        options ??= new GenerationOptions();
        Check(model, tokens, options);
        return Pieces(model, tokens, options, statistics, cancellation);
    }

    /// <summary>As <see cref="Generate"/>, without keeping the calling thread.</summary>
    /// <inheritdoc cref="Generate"/>
    public static IAsyncEnumerable<string> GenerateAsync(this CausalModel model, string prompt, GenerationOptions? options = null,
        Action<DecodingStatistics>? statistics = null, CancellationToken cancellation = default)
    {
        int[] tokens = model.EncodePrompt(prompt);
        options ??= new GenerationOptions();
        Check(model, tokens, options);
        return PiecesAsync(model, tokens, options, statistics, cancellation);
    }

    /// <summary>Continues a prompt of tokens; gives tokens as they come, a stop token included.</summary>
    /// <param name="model">The model.</param>
    /// <param name="prompt">The tokens to continue, at least one.</param>
    /// <param name="options">How; null: greedy, 256 tokens.</param>
    /// <param name="statistics">Called once at the end, or where the caller stops reading, with what was done; null: nobody.</param>
    /// <param name="cancellation">Looked at between steps.</param>
    /// <inheritdoc cref="Generate" path="/exception"/>
    public static IEnumerable<GeneratedToken> GenerateTokens(this CausalModel model, ReadOnlySpan<int> prompt, GenerationOptions? options = null,
        Action<DecodingStatistics>? statistics = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        options ??= new GenerationOptions();
        int[] tokens = prompt.ToArray();
        Check(model, tokens, options);
        return Tokens(model, tokens, options, statistics, cancellation);
    }

    /// <summary>The tokens of a prompt; refuses an empty one, whatever a tokenizer would put before it.</summary>
    internal static int[] EncodePrompt(this CausalModel model, string prompt)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(prompt);
        if (prompt.Length == 0) throw new ArgumentException("prompt: expected a text, got an empty one (to begin from nothing, give the model's first token)", nameof(prompt));
        if (model.Tokenizer is null) throw new ArgumentException("prompt: the model has no tokenizer, give tokens", nameof(prompt));
        return model.Tokenizer.Encode(prompt);
    }

    private static IEnumerable<string> Pieces(CausalModel model, int[] prompt, GenerationOptions options, Action<DecodingStatistics>? statistics, CancellationToken cancellation)
    {
        using DecodingBatch batch = Batch(model, prompt, options);
        try
        {
            Sequence sequence = batch.Add(prompt, options);
            while (batch.Step(cancellation))
                if (sequence.TakeText() is { Length: > 0 } piece) yield return piece;
            Rethrow(sequence);
        }
        finally
        {
            statistics?.Invoke(batch.Statistics);
        }
    }

    private static async IAsyncEnumerable<string> PiecesAsync(CausalModel model, int[] prompt, GenerationOptions options, Action<DecodingStatistics>? statistics,
        [EnumeratorCancellation] CancellationToken cancellation)
    {
        using DecodingBatch batch = Batch(model, prompt, options);
        try
        {
            Sequence sequence = batch.Add(prompt, options);
            while (await Task.Run(() => batch.Step(cancellation), cancellation).ConfigureAwait(false))
                if (sequence.TakeText() is { Length: > 0 } piece) yield return piece;
            Rethrow(sequence);
        }
        finally
        {
            statistics?.Invoke(batch.Statistics);
        }
    }

    private static IEnumerable<GeneratedToken> Tokens(CausalModel model, int[] prompt, GenerationOptions options, Action<DecodingStatistics>? statistics, CancellationToken cancellation)
    {
        using DecodingBatch batch = Batch(model, prompt, options);
        try
        {
            Sequence sequence = batch.Add(prompt, options);
            int given = 0;
            while (batch.Step(cancellation))
                for (; given < sequence.Generated.Length; given++)
                    yield return new GeneratedToken(sequence.Generated[given], options.LogProbabilities ? sequence.LogProbabilities[given] : null);
            Rethrow(sequence);
        }
        finally
        {
            statistics?.Invoke(batch.Statistics);
        }
    }

    private static void Check(CausalModel model, int[] prompt, GenerationOptions options)
    {
        options.Validate(model);
        if (prompt.Length == 0) throw new ArgumentException("prompt: expected at least one token, got none", nameof(prompt));
        foreach (int token in prompt)
            if ((uint)token >= (uint)model.VocabularySize) throw new ArgumentException($"prompt: expected tokens from 0 to {model.VocabularySize - 1}, got {token}", nameof(prompt));
        if (prompt.Length > model.MaxPositions)
            throw new Kernels.OutOfCapacityException($"prompt: expected at most {model.MaxPositions} tokens, as many as the model has positions, got {prompt.Length}");
    }

    private static DecodingBatch Batch(CausalModel model, int[] prompt, GenerationOptions options) => new(model, new DecodingBatchOptions
    {
        Slots = 1,
        Capacity = (int)Math.Min(model.MaxPositions, (long)prompt.Length + options.MaxTokens),
    });

    private static void Rethrow(Sequence sequence)
    {
        if (sequence.Error is { } error) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(error);
    }
}
