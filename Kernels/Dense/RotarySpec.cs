namespace Treeline.Kernels;

/// <summary>How rotary frequencies are stretched for positions beyond the training length.</summary>
public enum RotaryScaling
{
    /// <summary>Not at all.</summary>
    None,

    /// <summary>All frequencies divided by the factor. Chen et al. 2023.</summary>
    Linear,

    /// <summary>The base grows with the length ("dynamic NTK"); here each token's frequencies are those of its own length, position + 1, so that nothing depends on what follows it.</summary>
    Dynamic,

    /// <summary>Low frequencies divided by the factor, high ones kept, a smooth ramp between. LLaMA 3.</summary>
    Llama3,
}

/// <summary>A rotary embedding's parameters.</summary>
public sealed record RotarySpec
{
    /// <summary>Channels of a head that turn; even.</summary>
    public required int RotaryDim { get; init; }

    /// <summary>Base of the frequencies (<c>rope_theta</c>).</summary>
    public float Base { get; init; } = 10000;

    /// <summary>Kind of scaling.</summary>
    public RotaryScaling Scaling { get; init; }

    /// <summary>Scaling factor.</summary>
    public float Factor { get; init; } = 1;

    /// <summary>Training length, for dynamic and llama3 scaling.</summary>
    public int OriginalMaxPositions { get; init; }

    /// <summary>llama3: wavelengths above OriginalMaxPositions / this are divided by the factor.</summary>
    public float LowFrequencyFactor { get; init; } = 1;

    /// <summary>llama3: wavelengths below OriginalMaxPositions / this are kept.</summary>
    public float HighFrequencyFactor { get; init; } = 4;

    /// <summary>Refuses parameters that mean nothing.</summary>
    /// <exception cref="ArgumentException">Which one, what it is, what is wanted.</exception>
    public void Validate()
    {
        if (RotaryDim < 2 || RotaryDim % 2 != 0) throw new ArgumentException($"RotaryDim: expected an even number from 2 on, got {RotaryDim}");
        if (!(Base > 0) || float.IsInfinity(Base)) throw new ArgumentException($"Base: expected a positive number, got {Base}");
        if (!(Factor > 0) || float.IsInfinity(Factor)) throw new ArgumentException($"Factor: expected a positive number, got {Factor}");
        if (Scaling is RotaryScaling.Dynamic or RotaryScaling.Llama3 && OriginalMaxPositions < 1)
            throw new ArgumentException($"OriginalMaxPositions: expected a positive number with {Scaling} scaling, got {OriginalMaxPositions}");
        if (Scaling == RotaryScaling.Llama3 && !(HighFrequencyFactor > LowFrequencyFactor))
            throw new ArgumentException($"HighFrequencyFactor: expected more than LowFrequencyFactor {LowFrequencyFactor}, got {HighFrequencyFactor}");
    }
}
