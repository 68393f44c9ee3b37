using Treeline.Kernels;

namespace Treeline;

/// <summary>The <c>linear_attention</c> part of a checkpoint's <c>config.json</c>.</summary>
/// <param name="Local">The quadratic part inside the group.</param>
/// <param name="GroupSize">Tokens in a group.</param>
/// <param name="Global">Whether completed groups are seen.</param>
/// <param name="GlobalFactor">Whether a learned α scales them.</param>
/// <param name="ConvKernelSize">Stored width of the convolution kernel (its future half is masked); 0: none.</param>
public sealed record LinearAttentionConfig(LocalKind Local, int GroupSize, bool Global, bool GlobalFactor, int ConvKernelSize);

/// <summary>A checkpoint's <c>config.json</c>, in one set of names for all model types.</summary>
public sealed record ModelConfig
{
    /// <summary><c>llama</c> or <c>gpt2</c>.</summary>
    public required string ModelType { get; init; }

    /// <summary>Number of tokens.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Channels of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>Channels inside the feed-forward layers.</summary>
    public required int FeedForwardSize { get; init; }

    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }

    /// <summary>Number of query heads.</summary>
    public required int QueryHeads { get; init; }

    /// <summary>Number of key/value heads.</summary>
    public required int KeyValueHeads { get; init; }

    /// <summary>Channels of a head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Positions it was made for.</summary>
    public required int MaxPositions { get; init; }

    /// <summary>ε of its norms.</summary>
    public required float NormEpsilon { get; init; }

    /// <summary>True where the output layer is the token embedding.</summary>
    public bool TiedEmbeddings { get; init; }

    /// <summary>Rotary embedding, null where the model has none.</summary>
    public RotarySpec? Rotary { get; init; }

    /// <summary>The activation's name (<c>silu</c>, <c>gelu</c>, <c>gelu_new</c>).</summary>
    public required string Activation { get; init; }

    /// <summary>GPT-2: layer i's softmax scores are divided by i + 1.</summary>
    public bool ScaleByInverseLayer { get; init; }

    /// <summary>GPT-2: softmax scores are scaled by 1/√headDim.</summary>
    public bool ScaleScores { get; init; } = true;

    /// <summary>LLaMA: the attention's projections have biases.</summary>
    public bool AttentionBias { get; init; }

    /// <summary>LLaMA: the feed-forward's projections have biases.</summary>
    public bool FeedForwardBias { get; init; }

    /// <summary>Linearized attention, null for softmax.</summary>
    public LinearAttentionConfig? Linear { get; init; }

    /// <summary>Type of the stored weights where the configuration names one.</summary>
    public ElementType? WeightType { get; init; }

    /// <summary>First token of a text, where there is one.</summary>
    public int? BeginToken { get; init; }

    /// <summary>Tokens that end a text.</summary>
    public IReadOnlyList<int> StopTokens { get; init; } = [];

    /// <summary>What a layer's attention computes.</summary>
    /// <param name="layer">Which layer.</param>
    public AttentionSpec AttentionOf(int layer) => ModelAttention.Spec(this, layer);

    /// <summary>Reads a checkpoint's <c>config.json</c>, and <c>generation_config.json</c> beside it for the tokens that end a text.</summary>
    /// <param name="path">The checkpoint's folder, or the file itself.</param>
    /// <exception cref="CheckpointException">It is missing, of a model type that is not supported, lacks a key, or contradicts itself; the message names the key.</exception>
    public static ModelConfig Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return ModelConfigReader.Read(path);
    }
}
