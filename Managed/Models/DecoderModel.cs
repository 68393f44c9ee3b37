using Treeline.Kernels;

namespace Treeline;

/// <summary>What the decoder-only models have in common: the residual stream through attention and feed-forward, layer after layer; norms come before both.</summary>
/// <remarks>
/// Buffers grow to the largest step met and are reused from then on. Everything runs row by row but attention, so the feed-forward layers, whose buffers are the widest,
/// take a long prompt in pieces; only rows that want logits go through the last norm and the head.
/// </remarks>
internal abstract class DecoderModel : CausalModel
{
    private const int FeedForwardRows = 1024;

    private readonly ModelWeights _weights;
    private readonly Layer[] _layers;
    private readonly NormLayer _norm;
    private readonly WeightMatrix _head;
    private readonly List<ScratchRows> _perToken = [], _perPiece = [], _perLogit = [];
    private readonly ScratchRows _ids, _positions, _stream, _normed, _fused, _attended, _logitRows, _hidden, _logits;
    private readonly ScratchView _query, _key, _value, _attendedHeads;
    private bool _disposed;

    protected DecoderModel(ModelConfig config, ModelWeights weights, ModelNames names, ModelExtras extras)
    {
        (Config, _weights, Tokenizer, Medusa) = (config, weights, extras.Tokenizer, extras.Medusa);
        AttentionSpecs = [.. Enumerable.Range(0, config.Layers).Select(layer => ModelAttention.Spec(config, layer))];
        int hidden = config.HiddenSize, queries = config.QueryHeads * config.HeadDim, keys = config.KeyValueHeads * config.HeadDim;
        bool biased = names.NormBias;

        _layers = new Layer[config.Layers];
        for (int i = 0; i < _layers.Length; i++)
        {
            string at = names.Layer(i);
            _layers[i] = new Layer(
                weights.Norm($"{at}.{names.AttentionNorm}", hidden, config.NormEpsilon, biased),
                weights.Bind(AttentionSpecs[i], ModelAttention.Weights(weights, config, $"{at}.{names.Alpha}", $"{at}.{names.Taps}")),
                weights.Projection($"{at}.{names.AttentionOutput}", hidden, queries, config.AttentionBias, names.Transposed),
                weights.Norm($"{at}.{names.FeedForwardNorm}", hidden, config.NormEpsilon, biased));
        }

        _norm = weights.Norm(names.FinalNorm, hidden, config.NormEpsilon, biased);
        Embedding = weights.Table(names.Embedding, config.VocabularySize, hidden);
        _head = weights.Matrix(config.TiedEmbeddings ? names.Embedding : ModelNames.Head, config.VocabularySize, hidden);

        _ids = Track(_perToken, ElementType.Int32);
        _positions = Track(_perToken, ElementType.Int32);
        _stream = Track(_perToken, ElementType.Float32, hidden);
        _normed = Track(_perToken, ElementType.Float32, hidden);
        _fused = Track(_perToken, ElementType.Float32, queries + 2 * keys);
        _attended = Track(_perToken, ElementType.Float32, queries);
        _logitRows = Track(_perLogit, ElementType.Int32);
        _hidden = Track(_perLogit, ElementType.Float32, hidden);
        _logits = Track(_perLogit, ElementType.Float32, config.VocabularySize);
        _query = _fused.Heads(0, config.QueryHeads, config.HeadDim);
        _key = _fused.Heads(queries, config.KeyValueHeads, config.HeadDim);
        _value = _fused.Heads(queries + keys, config.KeyValueHeads, config.HeadDim);
        _attendedHeads = _attended.Heads(0, config.QueryHeads, config.HeadDim);
    }

    public sealed override ModelConfig Config { get; }

    public sealed override KernelBackend Backend => _weights.Backend;

    public sealed override TextTokenizer? Tokenizer { get; }

    public sealed override MedusaHeads? Medusa { get; }

    public sealed override IReadOnlyList<AttentionSpec> AttentionSpecs { get; }

    public sealed override int VocabularySize => Config.VocabularySize;

    public sealed override IReadOnlyCollection<int> StopTokens => Config.StopTokens;

    /// <summary>The token embeddings, <c>[vocabulary, hidden]</c>.</summary>
    protected DeviceTensor Embedding { get; }

    /// <summary>Query, key and value of all heads side by side, <c>[tokens, queries + keys + values]</c>.</summary>
    protected ScratchRows Fused => _fused;

    /// <summary>A buffer with a row a token.</summary>
    protected ScratchRows RowsPerToken(int columns) => Track(_perToken, ElementType.Float32, columns);

    /// <summary>A buffer with a row for each of the tokens that <see cref="FeedForward"/> takes at a time.</summary>
    protected ScratchRows RowsPerPiece(int columns) => Track(_perPiece, ElementType.Float32, columns);

    /// <summary>Fills the residual stream, and whatever all layers share.</summary>
    /// <param name="ids">int32 <c>[tokens]</c>.</param>
    /// <param name="positions">int32 <c>[tokens]</c>.</param>
    /// <param name="stream">Receives <c>[tokens, hidden]</c>.</param>
    /// <param name="scratch">Memory of the same shape.</param>
    protected abstract void Embed(DeviceTensor ids, DeviceTensor positions, DeviceTensor stream, DeviceTensor scratch);

    /// <summary>Writes query, key and value into <see cref="Fused"/>, as attention takes them.</summary>
    /// <param name="layer">Which layer.</param>
    /// <param name="input">The normed stream, <c>[tokens, hidden]</c>.</param>
    /// <param name="query">Where the query heads lie in <see cref="Fused"/>.</param>
    /// <param name="key">Where the key heads lie in it.</param>
    protected abstract void Project(int layer, DeviceTensor input, DeviceTensor query, DeviceTensor key);

    /// <summary>A layer's feed-forward part.</summary>
    /// <param name="layer">Which layer.</param>
    /// <param name="rows">The normed stream, <c>[tokens of a piece, hidden]</c>; replaced by the result.</param>
    protected abstract void FeedForward(int layer, DeviceTensor rows);

    protected sealed override ForwardOutput ForwardCore(AttentionState state, Step step, ReadOnlySpan<int> tokens)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        int n = step.Tokens, wanted = step.LogitCount;
        // All memory before anything begins: where there is not enough, nothing has moved.
        foreach (ScratchRows rows in _perToken) rows.Reserve(n);
        foreach (ScratchRows rows in _perPiece) rows.Reserve(Math.Min(n, FeedForwardRows));
        foreach (ScratchRows rows in _perLogit) rows.Reserve(wanted);

        state.Begin(step);
        try
        {
            DeviceTensor ids = _ids.First(n), positions = _positions.First(n), stream = _stream.First(n);
            Backend.Write(ids, tokens);
            Backend.Write(positions, step.Positions);
            if (wanted > 0) Backend.Write(_logitRows.First(wanted), step.LogitRows);       // now: a write waits for what is queued
            Embed(ids, positions, stream, _normed.First(n));
            for (int i = 0; i < _layers.Length; i++)
            {
                Run(i, state[i], step, stream);
                AfterLayer?.Invoke(i, stream);
            }

            if (wanted > 0) Logits(step, stream);
            state.Complete(step);
        }
        catch
        {
            state.Abandon(step);
            throw;
        }

        return new ForwardOutput(_logits.First(wanted), _hidden.First(wanted));
    }

    protected sealed override void Dispose(bool disposing)
    {
        _disposed = true;
        foreach (ScratchRows rows in _perToken.Concat(_perPiece).Concat(_perLogit)) rows.Dispose();
        Medusa?.Dispose();
        _weights.Dispose();
    }

    private void Run(int i, LayerState state, Step step, DeviceTensor stream)
    {
        int n = step.Tokens;
        Layer layer = _layers[i];
        DeviceTensor normed = _normed.First(n), query = _query.First(n), key = _key.First(n);
        layer.AttentionNorm.Apply(stream, normed);
        Project(i, normed, query, key);
        Backend.Attend(layer.Attention, state, step, new AttentionInputs(query, key, _value.First(n)), _attendedHeads.First(n));
        layer.AttentionOutput.Apply(_attended.First(n), normed);
        Backend.Add(stream, normed, stream);

        layer.FeedForwardNorm.Apply(stream, normed);
        if (n <= FeedForwardRows) FeedForward(i, normed);
        else
            for (int at = 0; at < n; at += FeedForwardRows) FeedForward(i, normed.Slice(0, at, Math.Min(FeedForwardRows, n - at)));
        Backend.Add(stream, normed, stream);
    }

    private void Logits(Step step, DeviceTensor stream)
    {
        DeviceTensor rows = _logitRows.First(step.LogitCount), hidden = _hidden.First(step.LogitCount);
        Backend.Embedding(stream, rows, hidden);
        _norm.Apply(hidden, hidden);
        Backend.Linear(hidden, _head, null, _logits.First(step.LogitCount));
    }

    private ScratchRows Track(List<ScratchRows> list, ElementType type, params int[] row)
    {
        var rows = new ScratchRows(Backend, type, row);
        list.Add(rows);
        return rows;
    }

    private sealed record Layer(NormLayer AttentionNorm, AttentionLayer Attention, Projection AttentionOutput, NormLayer FeedForwardNorm);
}

/// <summary>What lies beside a checkpoint's weights.</summary>
internal readonly record struct ModelExtras(TextTokenizer? Tokenizer, MedusaHeads? Medusa);
