namespace Treeline.Kernels;

/// <summary>The rule by which weights become <see cref="WeightForm.Int8"/> and <see cref="WeightForm.Int4"/>: every backend stores the integers and scales that it gives.</summary>
/// <remarks>
/// A block is <see cref="Size"/> neighbouring inputs of one output, or what is left of them at the end of a row. Each weight of it is stored as an integer, and stands for <c>scale · integer</c>, rounded once to float32.
/// <list type="bullet">
/// <item><see cref="WeightForm.Int8"/>: the scale is the largest magnitude / 127, integers are -127 to 127; a weight is off by at most 1/254 of the block's largest.</item>
/// <item><see cref="WeightForm.Int4"/>: the scale is the weight of the largest magnitude (the first of several), with its sign, / -8, integers are -8 to 7: the largest weight is kept exactly, and one more step is left for the
/// others than between -7 and 7. A weight is off by at most 1/16 of the block's largest; one of the other sign and more than 7.5/8 of the largest by at most 1/8.</item>
/// </list>
/// Integers are the nearest to weight / scale, ties to even, all in float32. A block so small that its scale would be subnormal is stored as zeros. The negated block has the same magnitudes.
/// </remarks>
public static class WeightBlocks
{
    /// <summary>Weights that share a scale.</summary>
    public const int Size = 32;

    private const float SmallestScale = 1.17549435e-38f;    // smaller ones are subnormal: devices disagree about them

    /// <summary>Blocks of one output.</summary>
    /// <param name="inputs">Weights of one output, at least one.</param>
    public static int Count(int inputs) => (inputs - 1) / Size + 1;

    /// <summary>Bytes of one output's integers and scales.</summary>
    /// <param name="form"><see cref="WeightForm.Int8"/> or <see cref="WeightForm.Int4"/>.</param>
    /// <param name="inputs">Weights of one output, at least one.</param>
    public static long Bytes(WeightForm form, int inputs) => (long)sizeof(float) * Count(inputs) + (IsInt4(form) ? (inputs + 1L) / 2 : inputs);

    /// <summary>Turns one block into integers.</summary>
    /// <param name="form"><see cref="WeightForm.Int8"/> or <see cref="WeightForm.Int4"/>.</param>
    /// <param name="weights">The block, at most <see cref="Size"/> weights.</param>
    /// <param name="integers">Receives as many integers.</param>
    /// <param name="output">Which output the block belongs to: for the message of a refusal.</param>
    /// <param name="firstInput">The block's first input: for the message of a refusal.</param>
    /// <returns>The scale.</returns>
    /// <exception cref="ArgumentException">A weight is infinite or no number, the block is too long, or the integers are not as many.</exception>
    public static float Quantize(WeightForm form, ReadOnlySpan<float> weights, Span<sbyte> integers, int output = 0, int firstInput = 0)
    {
        bool isInt4 = IsInt4(form);
        if (weights.Length > Size) throw new ArgumentException($"weights: expected at most {Size}, got {weights.Length}", nameof(weights));
        if (integers.Length != weights.Length) throw new ArgumentException($"integers: expected {weights.Length}, as many as weights, got {integers.Length}", nameof(integers));
        float largest = 0;
        for (int i = 0; i < weights.Length; i++)
        {
            if (!float.IsFinite(weights[i]))
                throw new ArgumentException($"weight: expected finite numbers to pack as {form}, got {weights[i]} at [{output}, {firstInput + i}]", nameof(weights));
            if (MathF.Abs(weights[i]) > MathF.Abs(largest)) largest = weights[i];
        }

        float scale = isInt4 ? largest / -8 : MathF.Abs(largest) / 127;
        if (float.IsInfinity(scale * 127) && !isInt4) scale = float.BitDecrement(scale);
        if (!(MathF.Abs(scale) >= SmallestScale))
        {
            integers.Clear();
            return 0;
        }

        (float least, float most) = isInt4 ? (-8, 7) : (-127, 127);
        for (int i = 0; i < weights.Length; i++) integers[i] = (sbyte)Math.Clamp(MathF.Round(weights[i] / scale), least, most);
        return scale;
    }

    private static bool IsInt4(WeightForm form) => form switch
    {
        WeightForm.Int4 => true,
        WeightForm.Int8 => false,
        _ => throw new ArgumentException($"form: expected {WeightForm.Int8} or {WeightForm.Int4}, got {form}", nameof(form)),
    };
}
