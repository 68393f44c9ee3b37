using Xunit;

namespace Treeline.Tests.Harness;

/// <summary>Comparisons of numbers.</summary>
internal static class Close
{
    /// <summary>float64 against the recordings of single operations.</summary>
    public const double Oracle = 2e-6;

    /// <summary>One attention in float32.</summary>
    public const double Attention = 2e-5;

    /// <summary>Whole models on the oracle: their frequencies and logits are recorded in float32.</summary>
    public const double OracleModel = 5e-5;

    /// <summary>Logits of whole models in float32.</summary>
    public const double Logits = 2e-4;

    /// <summary>bfloat16 inputs against the oracle on the same rounded inputs.</summary>
    public const double BFloat16 = 2e-3;

    /// <summary>float16 inputs against the oracle on the same rounded inputs.</summary>
    public const double Float16 = 3e-4;

    /// <summary>The measure of the recordings: <c>max|got - want| / max(1, max|want|)</c>; NaN is never close.</summary>
    public static void To(ReadOnlySpan<double> want, ReadOnlySpan<double> got, double tolerance, string what = "")
    {
        Assert.True(want.Length == got.Length, $"{what}: want {want.Length} numbers, got {got.Length}");
        double largest = Largest(want);
        for (int i = 0; i < want.Length; i++)
        {
            if (!(Math.Abs(got[i] - want[i]) <= tolerance * largest))
                Assert.Fail($"{what}[{i}]: want {want[i]:r}, got {got[i]:r}, tolerance {tolerance} of {largest:g3}");
        }
    }

    /// <inheritdoc cref="To(ReadOnlySpan{double}, ReadOnlySpan{double}, double, string)"/>
    public static void To(ReadOnlySpan<float> want, ReadOnlySpan<float> got, double tolerance, string what = "") => To(Widen(want), Widen(got), tolerance, what);

    /// <summary>The error that <see cref="To(ReadOnlySpan{double}, ReadOnlySpan{double}, double, string)"/> compares with its tolerance; NaN where a number is.</summary>
    public static double Error(ReadOnlySpan<double> want, ReadOnlySpan<double> got)
    {
        double error = 0;
        for (int i = 0; i < want.Length; i++)
        {
            double difference = Math.Abs(got[i] - want[i]);
            if (!(difference <= error)) error = difference;
        }

        return error / Largest(want);
    }

    /// <summary>The very same numbers; NaN equals NaN, whatever its payload, and +0 differs from -0.</summary>
    public static void SameBits(ReadOnlySpan<double> want, ReadOnlySpan<double> got, string what = "")
    {
        Assert.True(want.Length == got.Length, $"{what}: want {want.Length} numbers, got {got.Length}");
        for (int i = 0; i < want.Length; i++)
        {
            bool same = double.IsNaN(want[i]) ? double.IsNaN(got[i]) : BitConverter.DoubleToInt64Bits(want[i]) == BitConverter.DoubleToInt64Bits(got[i]);
            if (!same) Assert.Fail($"{what}[{i}]: want {want[i]:r}, got {got[i]:r}: other bits");
        }
    }

    public static double[] Widen(ReadOnlySpan<float> numbers)
    {
        var wide = new double[numbers.Length];
        for (int i = 0; i < wide.Length; i++) wide[i] = numbers[i];
        return wide;
    }

    private static double Largest(ReadOnlySpan<double> want)
    {
        double largest = 1;
        foreach (double x in want) largest = Math.Max(largest, Math.Abs(x));
        return largest;
    }
}
