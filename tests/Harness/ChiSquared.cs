namespace Treeline.Tests.Harness;

/// <summary>Pearson's test of counts against probabilities.</summary>
internal static class ChiSquared
{
    /// <summary>The normal deviate that is exceeded with probability 1e-6: with fixed seeds the tests are deterministic, with others one in a million would fail.</summary>
    private const double Deviate = 4.7534;

    /// <summary>Σ (count - expected)² / expected, divided by the value that it exceeds once in a million samples: above 1 the counts are not of this distribution.</summary>
    /// <param name="counts">How often each outcome came.</param>
    /// <param name="probabilities">How probable each outcome is.</param>
    public static double Ratio(ReadOnlySpan<long> counts, ReadOnlySpan<double> probabilities)
    {
        long draws = 0;
        foreach (long count in counts) draws += count;
        double statistic = 0, rareExpected = 0;
        long rareCount = 0;
        int cells = 0;
        for (int i = 0; i < counts.Length; i++)
        {
            if (probabilities[i] == 0 && counts[i] > 0) return double.PositiveInfinity;
            double expected = draws * probabilities[i];
            if (expected >= 5) Add(counts[i], expected);
            else (rareCount, rareExpected) = (rareCount + counts[i], rareExpected + expected);   // too rare for the approximation: together
        }

        if (rareExpected > 0) Add(rareCount, rareExpected);
        return statistic / Critical(cells - 1);

        void Add(long count, double expected)
        {
            statistic += (count - expected) * (count - expected) / expected;
            cells++;
        }
    }

    /// <summary>Wilson and Hilferty 1931.</summary>
    private static double Critical(int freedom)
    {
        double spread = 2.0 / (9 * Math.Max(1, freedom));
        return freedom * Math.Pow(1 - spread + Deviate * Math.Sqrt(spread), 3);
    }
}
