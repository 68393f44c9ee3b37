namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <summary>Softmax attention a second time, as the formula stands: weights first, then their sum over all rows of a path, with no state and no step.</summary>
    /// <param name="spec">What is computed.</param>
    /// <param name="query">The last token's, <c>[queryHeads, headDim]</c>.</param>
    /// <param name="keys">Of every token from position 0 to the last one, each <c>[keyValueHeads, headDim]</c>.</param>
    /// <param name="values">Likewise, each <c>[keyValueHeads, valueDim]</c>.</param>
    /// <returns>The last token's output, <c>[queryHeads, valueDim]</c>.</returns>
    internal static double[] SoftmaxStateless(AttentionSpec spec, double[] query, IReadOnlyList<double[]> keys, IReadOnlyList<double[]> values)
    {
        int d = spec.HeadDim, dv = spec.ValueDim;
        var output = new double[spec.QueryHeads * dv];
        for (int h = 0; h < spec.QueryHeads; h++)
        {
            int kv = h / (spec.QueryHeads / spec.KeyValueHeads);
            double[] scores = [.. keys.Select(key => Enumerable.Range(0, d).Sum(c => query[h * d + c] * key[kv * d + c]) * (spec.ScoreScale ?? Math.Pow(d, -0.5)))];
            double logarithm = scores.Max() + Math.Log(scores.Sum(score => Math.Exp(score - scores.Max())));
            for (int e = 0; e < dv; e++)
                output[h * dv + e] = Enumerable.Range(0, scores.Length).Sum(j => Math.Exp(scores[j] - logarithm) * values[j][kv * dv + e]);
        }

        return output;
    }
}
