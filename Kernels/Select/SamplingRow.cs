namespace Treeline.Kernels;

/// <summary>How one row of logits is drawn from.</summary>
/// <param name="Seed">The sequence's seed.</param>
/// <param name="Position">Position of the token that is drawn.</param>
/// <param name="Temperature">Divides the logits; 0: take the largest.</param>
/// <param name="TopK">Keep the k most probable; 0: all.</param>
/// <param name="TopP">Keep the fewest most probable tokens that reach this probability; 1: all.</param>
/// <param name="MinP">Keep tokens at least this probable relative to the most probable one; 0: all.</param>
public readonly record struct SamplingRow(ulong Seed, int Position, float Temperature, int TopK = 0, float TopP = 1, float MinP = 0)
{
    /// <summary>The uniform number in [0, 1) that decides the draw: a function of seed and position alone (53 bits of SplitMix64).</summary>
    public double Uniform => (Mix(Mix(Seed) + (ulong)Position * 0x9E3779B97F4A7C15UL) >> 11) * (1.0 / (1UL << 53));

    internal void Validate()
    {
        if (!(Temperature >= 0) || float.IsInfinity(Temperature)) throw new ArgumentException($"Temperature: expected 0 or more, got {Temperature}");
        if (TopK < 0) throw new ArgumentException($"TopK: expected 0 or more, got {TopK}");
        if (!(TopP > 0 && TopP <= 1)) throw new ArgumentException($"TopP: expected a number in (0, 1], got {TopP}");
        if (!(MinP >= 0 && MinP <= 1)) throw new ArgumentException($"MinP: expected a number in [0, 1], got {MinP}");
    }

    // Steele et al. 2014, the finalizer of SplitMix64.
    private static ulong Mix(ulong x)
    {
        x += 0x9E3779B97F4A7C15UL;
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9UL;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBUL;
        return x ^ (x >> 31);
    }
}
