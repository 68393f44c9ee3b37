using Treeline.Kernels;

namespace Treeline;

/// <summary>GPT-2: learned positions, layer norms, one fused projection to query, key and value, GELU; softmax attention or grouped linear attention.</summary>
internal sealed class Gpt2Model : DecoderModel
{
    private readonly Layer[] _layers;
    private readonly DeviceTensor _positions;
    private readonly GeluForm _gelu;
    private readonly ScratchRows _wide;

    public Gpt2Model(ModelConfig config, ModelWeights weights, ModelExtras extras) : base(config, weights, Names(weights), extras)
    {
        int hidden = config.HiddenSize, wide = config.FeedForwardSize;
        ModelNames names = Names(weights);
        _layers = new Layer[config.Layers];
        for (int i = 0; i < _layers.Length; i++)
        {
            string at = names.Layer(i);
            _layers[i] = new Layer(
                weights.Projection($"{at}.attn.c_attn", 3 * hidden, hidden, bias: true, transposed: true),
                weights.Projection($"{at}.mlp.c_fc", wide, hidden, bias: true, transposed: true),
                weights.Projection($"{at}.mlp.c_proj", hidden, wide, bias: true, transposed: true));
        }

        _positions = weights.Table($"{Prefix(weights)}wpe.weight", config.MaxPositions, hidden);
        _gelu = config.Activation == "gelu" ? GeluForm.Exact : GeluForm.Tanh;
        _wide = RowsPerPiece(wide);
    }

    /// <summary>As many as its table has, linearized or not.</summary>
    public override int MaxPositions => Config.MaxPositions;

    /// <summary>True for parameters that GPT-2's checkpoints carry and no model of this configuration computes with: causal masks, the reference's second filter.</summary>
    public static bool IsKnownUnused(ModelConfig config, string name) =>
        name.EndsWith(".attn.bias", StringComparison.Ordinal) || name.EndsWith(".attn.masked_bias", StringComparison.Ordinal)
        || name.EndsWith(".attn.dconv_ada2.weight", StringComparison.Ordinal) || (config.TiedEmbeddings && name == ModelNames.Head);

    protected override void Embed(DeviceTensor ids, DeviceTensor positions, DeviceTensor stream, DeviceTensor scratch)
    {
        Backend.Embedding(Embedding, ids, stream);
        Backend.Embedding(_positions, positions, scratch);
        Backend.Add(stream, scratch, stream);
    }

    protected override void Project(int layer, DeviceTensor input, DeviceTensor query, DeviceTensor key) =>
        _layers[layer].Attention.Apply(input, Fused.First(input.Rows));

    protected override void FeedForward(int layer, DeviceTensor rows)
    {
        Layer at = _layers[layer];
        DeviceTensor wide = _wide.First(rows.Rows);
        at.Wide.Apply(rows, wide);
        Backend.Gelu(wide, _gelu, wide);
        at.Narrow.Apply(wide, rows);
    }

    // A model saved without its head has no prefix.
    private static string Prefix(ModelWeights weights) => weights.Has("wte.weight") ? "" : "transformer.";

    private static ModelNames Names(ModelWeights weights)
    {
        string prefix = Prefix(weights);
        return new ModelNames
        {
            Layers = $"{prefix}h",
            Embedding = $"{prefix}wte.weight",
            FinalNorm = $"{prefix}ln_f",
            AttentionNorm = "ln_1",
            AttentionOutput = "attn.c_proj",
            Alpha = "attn.alpha",
            Taps = "attn.dconv_ada.weight",
            FeedForwardNorm = "ln_2",
            NormBias = true,
            Transposed = true,
        };
    }

    private sealed record Layer(Projection Attention, Projection Wide, Projection Narrow);
}
