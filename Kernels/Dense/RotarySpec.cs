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

    /// <summary>Frequency of each pair at a position, in float32 throughout: the training code of the checkpoints does so, and a frequency's last bit is seen at far positions. Data that backends share, not arithmetic that one checks in another.</summary>
    /// <param name="position">The token's position; only dynamic scaling looks at it.</param>
    /// <param name="frequencies">Receives <c>RotaryDim / 2</c> numbers.</param>
    internal void Frequencies(int position, Span<float> frequencies)
    {
        double from = Base;
        if (Scaling == RotaryScaling.Dynamic)
        {
            double length = Math.Max((double)position + 1, OriginalMaxPositions);
            from = Base * Math.Pow(Factor * length / OriginalMaxPositions - (Factor - 1), RotaryDim / (RotaryDim - 2.0));
        }

        for (int j = 0; j < frequencies.Length; j++)
        {
            float exponent = 2 * j / (float)RotaryDim;
            frequencies[j] = Scaled(1 / (float)Math.Pow((float)from, exponent));
        }
    }

    private float Scaled(float frequency)
    {
        if (Scaling == RotaryScaling.Linear) return frequency / Factor;
        if (Scaling != RotaryScaling.Llama3) return frequency;
        float wavelength = 2 * MathF.PI / frequency;
        if (wavelength < OriginalMaxPositions / HighFrequencyFactor) return frequency;
        if (wavelength > OriginalMaxPositions / LowFrequencyFactor) return frequency / Factor;
        float smooth = (OriginalMaxPositions / wavelength - LowFrequencyFactor) / (HighFrequencyFactor - LowFrequencyFactor);
        return (1 - smooth) * frequency / Factor + smooth * frequency;
    }
}
