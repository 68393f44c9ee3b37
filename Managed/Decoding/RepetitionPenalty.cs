using System.Buffers;

namespace Treeline;

/// <summary>Makes tokens that a path has already less probable: positive logits are divided by the penalty, others multiplied. Keskar et al. 2019 (CTRL).</summary>
public sealed class RepetitionPenalty : ILogitsProcessor
{
    private readonly float _penalty;

    /// <summary>Creates the processor.</summary>
    /// <param name="penalty">Above 1: repetition becomes rarer; 1: nothing changes.</param>
    /// <exception cref="ArgumentOutOfRangeException">The penalty is not above 0, or not finite.</exception>
    public RepetitionPenalty(float penalty)
    {
        if (!(penalty > 0) || !float.IsFinite(penalty)) throw new ArgumentOutOfRangeException(nameof(penalty), penalty, "expected a number above 0");
        _penalty = penalty;
    }

    /// <inheritdoc/>
    public void Process(ReadOnlySpan<int> path, Span<float> logits)
    {
        int words = (logits.Length + 63) / 64;
        ulong[] rented = ArrayPool<ulong>.Shared.Rent(words);
        Span<ulong> seen = rented.AsSpan(0, words);
        seen.Clear();
        foreach (int token in path)
        {
            if ((seen[token >> 6] >> (token & 63) & 1) != 0) continue;
            seen[token >> 6] |= 1UL << (token & 63);
            logits[token] = logits[token] > 0 ? logits[token] / _penalty : logits[token] * _penalty;
        }

        ArrayPool<ulong>.Shared.Return(rented);
    }
}
