namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <summary>Grouped attention a second time, as the formula stands: a direct sum over all rows of a path, with no S, no tail, no step. The form with a state is checked against it.</summary>
    /// <param name="spec">What is computed.</param>
    /// <param name="alpha">Factor of the global term.</param>
    /// <param name="taps"><c>[queryHeads, convTaps]</c>.</param>
    /// <param name="query">The last token's, <c>[queryHeads, headDim]</c>.</param>
    /// <param name="keys">Of every token from position 0 to the last one, each <c>[keyValueHeads, headDim]</c>.</param>
    /// <param name="values">Likewise, each <c>[keyValueHeads, valueDim]</c>.</param>
    /// <returns>The last token's output, <c>[queryHeads, valueDim]</c>.</returns>
    internal static double[] FlashStateless(AttentionSpec spec, double alpha, double[] taps, double[] query, IReadOnlyList<double[]> keys, IReadOnlyList<double[]> values)
    {
        int d = spec.HeadDim, dv = spec.ValueDim, last = keys.Count - 1, groupStart = last / spec.GroupSize * spec.GroupSize;
        var output = new double[spec.QueryHeads * dv];
        for (int h = 0; h < spec.QueryHeads; h++)
        {
            int kv = h / (spec.QueryHeads / spec.KeyValueHeads);
            ReadOnlySpan<double> q = query.AsSpan(h * d, d);
            var local = new double[dv];
            var global = new double[dv];
            for (int j = 0; j <= last; j++)
            {
                double similarity = Cosine(q, keys[j].AsSpan(kv * d, d));
                double toLocal = j < groupStart ? 0 : spec.Local switch
                {
                    LocalKind.Relu2 => Math.Pow(Math.Max(similarity, 0), 2),
                    LocalKind.Yoso8 => Math.Pow(1 - Math.Acos(0.98 * similarity) / Math.PI, 8),
                    _ => 0,
                };
                double toGlobal = spec.Global && j < groupStart ? similarity : 0;
                for (int e = 0; e < dv; e++)
                {
                    local[e] += toLocal * values[j][kv * dv + e];
                    global[e] += toGlobal * values[j][kv * dv + e];
                }
            }

            double globalNorm = spec.Norm == OutputNorm.Global ? spec.NormEpsilon + Length(global) : 1;
            double[] x = [.. local.Zip(global, (l, g) => l + alpha * g / globalNorm)];
            if (spec.Norm == OutputNorm.Castling) x = [.. x.Select((sum, e) => sum / Math.PI + 0.5 * values[last][kv * dv + e])];
            double norm = spec.Norm switch
            {
                OutputNorm.Together => spec.NormEpsilon + Length(x),
                OutputNorm.Castling => Length(x),
                _ => 1,
            };

            for (int e = 0; e < dv; e++)
            {
                double sum = norm == 0 ? 0 : x[e] / norm;
                for (int t = 0; t < spec.ConvTaps && t <= last; t++) sum += taps[h * spec.ConvTaps + t] * values[last - t][kv * dv + e];
                output[h * dv + e] = sum;
            }
        }

        return output;
    }

    private static double Cosine(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        double dot = 0;
        for (int c = 0; c < a.Length; c++) dot += a[c] * b[c];
        double lengths = Length(a) * Length(b);
        return lengths == 0 ? 0 : dot / lengths;
    }

    private static double Length(ReadOnlySpan<double> vector)
    {
        double squares = 0;
        foreach (double x in vector) squares += x * x;
        return Math.Sqrt(squares);
    }
}
