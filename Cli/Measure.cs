namespace Treeline.Cli;

/// <summary>The measure of docs/tolerances.md.</summary>
internal static class Measure
{
    /// <summary>Under this margin of the two best logits another rounding may fairly choose the other token.</summary>
    public const float LeastMargin = 1e-3f;

    /// <summary><c>max|got - want| / max(1, max|want|)</c>; NaN where a number is none.</summary>
    public static double RelativeError(ReadOnlySpan<float> want, ReadOnlySpan<float> got)
    {
        double error = 0, largest = 1;
        for (int i = 0; i < want.Length; i++)
        {
            double difference = got[i] == want[i] ? 0 : Math.Abs((double)got[i] - want[i]);   // equal infinities differ by nothing
            if (!(difference <= error)) error = difference;
            if (double.IsNaN(error)) return double.NaN;
            largest = Math.Max(largest, Math.Abs((double)want[i]));
        }

        return error / largest;
    }

    /// <summary>How many of the integers differ.</summary>
    public static int Differences(ReadOnlySpan<int> want, ReadOnlySpan<int> got)
    {
        int count = 0;
        for (int i = 0; i < want.Length; i++)
            if (got[i] != want[i]) count++;
        return count;
    }
}
