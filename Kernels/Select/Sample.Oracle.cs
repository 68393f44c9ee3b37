using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void SampleCore(DeviceTensor logits, ReadOnlySpan<SamplingRow> rows, DeviceTensor tokens)
    {
        var drawn = new int[rows.Length];
        for (int i = 0; i < drawn.Length; i++) drawn[i] = Draw(Row(logits, i), rows[i], i);
        for (int i = 0; i < drawn.Length; i++) Store(tokens, i, [drawn[i]]);
    }

    private static int Draw(double[] logits, SamplingRow how, int index)
    {
        if (logits.Any(double.IsNaN)) throw new ArgumentException($"logits: row {index} has NaN", nameof(logits));
        if (logits.Any(double.IsPositiveInfinity)) throw new ArgumentException($"logits: row {index} has +infinity", nameof(logits));
        if (!logits.Any(double.IsFinite)) throw new ArgumentException($"logits: row {index} has no finite number", nameof(logits));
        if (how.Temperature == 0) return Largest(logits);

        double largest = logits.Max();
        double[] weights = Array.ConvertAll(logits, x => Math.Exp((x - largest) / how.Temperature));
        int[] order = Descending(logits);
        int keep = how.TopK > 0 ? Math.Min(how.TopK, order.Length) : order.Length;

        double total = order.Take(keep).Sum(c => weights[c]), reached = 0;
        int fewest = 0;
        while (fewest < keep && (fewest == 0 || reached < how.TopP * total)) reached += weights[order[fewest++]];
        if (how.TopP < 1) keep = fewest;

        while (keep > 1 && weights[order[keep - 1]] < how.MinP * weights[order[0]]) keep--;

        int[] kept = [.. order.Take(keep).Order()];
        double mass = kept.Sum(c => weights[c]), passed = 0;
        foreach (int c in kept)
        {
            passed += weights[c];
            if (passed > how.Uniform * mass) return c;
        }

        return kept.Last(c => weights[c] > 0);              // rounding alone kept the sum from passing
    }
}
