using Treeline.Kernels;

namespace Treeline;

/// <summary>LLaMA: rotary embedding, grouped-query heads, RMS norms, SiLU-gated feed-forward; softmax attention or grouped linear attention.</summary>
internal sealed class LlamaModel : DecoderModel
{
    private readonly Layer[] _layers;
    private readonly RotarySpec _rotary;
    private readonly ScratchView _query, _key, _value;
    private readonly ScratchRows _cosines, _sines, _gate, _up;

    public LlamaModel(ModelConfig config, ModelWeights weights, ModelExtras extras) : base(config, weights, Names(weights), extras)
    {
        int hidden = config.HiddenSize, wide = config.FeedForwardSize, queries = config.QueryHeads * config.HeadDim, keys = config.KeyValueHeads * config.HeadDim;
        ModelNames names = Names(weights);
        _layers = new Layer[config.Layers];
        for (int i = 0; i < _layers.Length; i++)
        {
            string attention = $"{names.Layer(i)}.self_attn", feedForward = $"{names.Layer(i)}.mlp";
            _layers[i] = new Layer(
                weights.Projection($"{attention}.q_proj", queries, hidden, config.AttentionBias),
                weights.Projection($"{attention}.k_proj", keys, hidden, config.AttentionBias),
                weights.Projection($"{attention}.v_proj", keys, hidden, config.AttentionBias),
                weights.Projection($"{feedForward}.gate_proj", wide, hidden, config.FeedForwardBias),
                weights.Projection($"{feedForward}.up_proj", wide, hidden, config.FeedForwardBias),
                weights.Projection($"{feedForward}.down_proj", hidden, wide, config.FeedForwardBias));
        }

        _rotary = config.Rotary!;
        _query = Fused.Columns(0, queries);
        _key = Fused.Columns(queries, keys);
        _value = Fused.Columns(queries + keys, keys);
        _cosines = RowsPerToken(_rotary.RotaryDim / 2);
        _sines = RowsPerToken(_rotary.RotaryDim / 2);
        _gate = RowsPerPiece(wide);
        _up = RowsPerPiece(wide);
    }

    /// <summary>A linearized model has no table and no cache that ends; dynamic scaling stretches its frequencies as a text grows.</summary>
    public override int MaxPositions => Config.Linear is not null || _rotary.Scaling == RotaryScaling.Dynamic ? int.MaxValue : Config.MaxPositions;

    /// <summary>True for parameters that LLaMA's checkpoints carry and no model of this configuration computes with.</summary>
    public static bool IsKnownUnused(ModelConfig config, string name) =>
        name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal) || (config.TiedEmbeddings && name == ModelNames.Head);

    protected override void Embed(DeviceTensor ids, DeviceTensor positions, DeviceTensor stream, DeviceTensor scratch)
    {
        Backend.Embedding(Embedding, ids, stream);
        Backend.RotaryAngles(_rotary, positions, _cosines.First(ids.Rows), _sines.First(ids.Rows));
    }

    protected override void Project(int layer, DeviceTensor input, DeviceTensor query, DeviceTensor key)
    {
        int n = input.Rows;
        Layer at = _layers[layer];
        at.Query.Apply(input, _query.First(n));
        at.Key.Apply(input, _key.First(n));
        at.Value.Apply(input, _value.First(n));
        Backend.Rotary(query, _cosines.First(n), _sines.First(n), RotaryPairs.Halves);
        Backend.Rotary(key, _cosines.First(n), _sines.First(n), RotaryPairs.Halves);
    }

    protected override void FeedForward(int layer, DeviceTensor rows)
    {
        Layer at = _layers[layer];
        DeviceTensor gate = _gate.First(rows.Rows), up = _up.First(rows.Rows);
        at.Gate.Apply(rows, gate);
        at.Up.Apply(rows, up);
        Backend.SiluGate(gate, up, gate);
        at.Down.Apply(gate, rows);
    }

    /// <summary>How LLaMA names its parameters; a model that was saved without its head has no prefix.</summary>
    internal static ModelNames Names(ModelWeights weights)
    {
        string prefix = weights.Has("embed_tokens.weight") ? "" : "model.";
        return new ModelNames
        {
            Layers = $"{prefix}layers",
            Embedding = $"{prefix}embed_tokens.weight",
            FinalNorm = $"{prefix}norm",
            AttentionNorm = "input_layernorm",
            AttentionOutput = "self_attn.o_proj",
            Alpha = "self_attn.global_factor",
            Taps = "self_attn.dwconv.weight",
            FeedForwardNorm = "post_attention_layernorm",
        };
    }

    private sealed record Layer(Projection Query, Projection Key, Projection Value, Projection Gate, Projection Up, Projection Down);
}
