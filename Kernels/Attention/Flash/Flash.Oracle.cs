using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        AttentionSpec spec = layer.Spec;
        double alpha = spec.HasAlpha ? All(layer["alpha"])[0] : 1;
        double[] taps = spec.ConvTaps > 0 ? All(layer["taps"]) : [];
        double[][] queries = [.. Rows(inputs.Query).Select(row => UnitHeads(row, spec.HeadDim))];
        double[][] keys = [.. Rows(inputs.Key).Select(row => UnitHeads(row, spec.HeadDim))];
        double[][] values = Rows(inputs.Value);

        ((OracleLayerState)state).Visit(step,
            append: (past, token) =>
            {
                if (past.Has("key")) past.Rows("key").Add(keys[token]);
                past.Rows("value").Add(values[token]);
            },
            attend: (past, token) => Store(output, token, FlashToken(spec, alpha, taps, past, queries[token])),
            close: past => FlashClose(spec, past));
    }

    /// <summary>Output of the last token of a past: S of the completed groups, the rows of the current one, the values up the path.</summary>
    private static double[] FlashToken(AttentionSpec spec, double alpha, double[] taps, OracleSlot past, double[] query)
    {
        int d = spec.HeadDim, dv = spec.ValueDim, T = spec.ConvTaps;
        List<double[]> values = past.Rows("value");
        List<double[]> keys = past.Has("key") ? past.Rows("key") : [];
        List<double[]> window = past.Has("window") ? past.Rows("window") : [];
        double[] sum = spec.Global ? past["S"] : [];
        var output = new double[spec.QueryHeads * dv];
        for (int h = 0; h < spec.QueryHeads; h++)
        {
            int kv = h / spec.HeadsPerKeyValue;
            var local = new double[dv];
            var global = new double[dv];
            var conv = new double[dv];

            if (spec.Local != LocalKind.None)
            {
                for (int j = 0; j < values.Count; j++)
                {
                    double dot = 0;
                    for (int c = 0; c < d; c++) dot += query[h * d + c] * keys[j][kv * d + c];
                    double weight = LocalWeight(spec.Local, dot);
                    for (int e = 0; e < dv; e++) local[e] += weight * values[j][kv * dv + e];
                }
            }

            if (spec.Global)
            {
                for (int e = 0; e < dv; e++)
                    for (int c = 0; c < d; c++) global[e] += query[h * d + c] * sum[(kv * d + c) * dv + e];
            }

            for (int t = 0; t < T; t++)
            {
                double[] up = t < values.Count ? values[values.Count - 1 - t] : window[T - 1 + values.Count - 1 - t];
                for (int e = 0; e < dv; e++) conv[e] += taps[h * T + t] * up[kv * dv + e];
            }

            if (spec.Norm == OutputNorm.Global) DivideBy(global, spec.NormEpsilon + Norm(global));
            var x = new double[dv];
            for (int e = 0; e < dv; e++) x[e] = local[e] + alpha * global[e];
            if (spec.Norm == OutputNorm.Together) DivideBy(x, spec.NormEpsilon + Norm(x));
            if (spec.Norm == OutputNorm.Castling)
            {
                for (int e = 0; e < dv; e++) x[e] = values[^1][kv * dv + e] / 2 + x[e] / Math.PI;
                DivideBy(x, Norm(x));
            }

            for (int e = 0; e < dv; e++) output[h * dv + e] = x[e] + conv[e];
        }

        return output;
    }

    /// <summary>Moves S past a group that is complete, its rows in order, and keeps the values that the convolution may still reach.</summary>
    private static void FlashClose(AttentionSpec spec, OracleSlot past)
    {
        int d = spec.HeadDim, dv = spec.ValueDim;
        List<double[]> values = past.Rows("value");
        if (values.Count < spec.BlockLength) return;

        if (spec.Global)
        {
            double[] sum = [.. past["S"]];
            List<double[]> keys = past.Rows("key");
            for (int j = 0; j < values.Count; j++)
                for (int kv = 0; kv < spec.KeyValueHeads; kv++)
                    for (int c = 0; c < d; c++)
                        for (int e = 0; e < dv; e++) sum[(kv * d + c) * dv + e] += keys[j][kv * d + c] * values[j][kv * dv + e];
            past["S"] = sum;
        }

        if (past.Has("window"))
        {
            List<double[]> window = past.Rows("window");
            window.AddRange(values);
            window.RemoveRange(0, values.Count);
        }

        if (past.Has("key")) past.Rows("key").Clear();
        values.Clear();
    }

    private static double LocalWeight(LocalKind kind, double dot) => kind switch
    {
        LocalKind.Relu2 => dot > 0 ? dot * dot : double.IsNaN(dot) ? dot : 0,
        LocalKind.Yoso8 => Math.Pow(1 - Math.Acos(0.98 * dot) / Math.PI, 8),
        _ => throw new NotSupportedException($"oracle: local kind {kind} is unknown"),
    };

    /// <summary>Each head's vector divided by its norm; a zero vector stays zero.</summary>
    private static double[] UnitHeads(double[] row, int dim)
    {
        var unit = new double[row.Length];
        for (int start = 0; start < row.Length; start += dim)
        {
            double[] head = row[start..(start + dim)];
            DivideBy(head, Norm(head));
            head.CopyTo(unit, start);
        }

        return unit;
    }

    private static double Norm(double[] vector)
    {
        double sum = 0;
        foreach (double x in vector) sum += x * x;
        return Math.Sqrt(sum);
    }

    private static void DivideBy(double[] vector, double norm)
    {
        for (int i = 0; i < vector.Length; i++) vector[i] = norm == 0 ? 0 : vector[i] / norm;
    }
}
