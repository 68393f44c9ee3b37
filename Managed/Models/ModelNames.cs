namespace Treeline;

/// <summary>How a model type names the parameters that all decoder-only models have.</summary>
internal sealed record ModelNames
{
    /// <summary>The output layer, where it is not the token embedding.</summary>
    public const string Head = "lm_head.weight";

    /// <summary>The list of layers.</summary>
    public required string Layers { get; init; }

    /// <summary>The token embedding.</summary>
    public required string Embedding { get; init; }

    /// <summary>The last norm.</summary>
    public required string FinalNorm { get; init; }

    /// <summary>In a layer: the norm before attention.</summary>
    public required string AttentionNorm { get; init; }

    /// <summary>In a layer: what follows attention.</summary>
    public required string AttentionOutput { get; init; }

    /// <summary>In a layer: α.</summary>
    public required string Alpha { get; init; }

    /// <summary>In a layer: the convolution's filters.</summary>
    public required string Taps { get; init; }

    /// <summary>In a layer: the norm before the feed-forward part.</summary>
    public required string FeedForwardNorm { get; init; }

    /// <summary>True where norms have a bias.</summary>
    public bool NormBias { get; init; }

    /// <summary>True where linear layers are stored <c>[inputs, outputs]</c>.</summary>
    public bool Transposed { get; init; }

    /// <summary>A layer's name.</summary>
    public string Layer(int index) => $"{Layers}.{index}";
}
