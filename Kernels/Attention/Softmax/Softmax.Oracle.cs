using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void SoftmaxAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        AttentionSpec spec = layer.Spec;
        double[][] queries = Rows(inputs.Query), keys = Rows(inputs.Key), values = Rows(inputs.Value);
        ((OracleLayerState)state).Visit(step,
            append: (past, token) =>
            {
                past.Rows("key").Add(keys[token]);
                past.Rows("value").Add(values[token]);
            },
            attend: (past, token) => Store(output, token, SoftmaxToken(spec, past, queries[token])),
            close: past => { });
    }

    /// <summary>Output of the last token of a past.</summary>
    private static double[] SoftmaxToken(AttentionSpec spec, OracleSlot past, double[] query)
    {
        int d = spec.HeadDim, dv = spec.ValueDim;
        double scale = spec.ScoreScale ?? 1 / Math.Sqrt(d);
        List<double[]> keys = past.Rows("key"), values = past.Rows("value");
        var output = new double[spec.QueryHeads * dv];
        for (int h = 0; h < spec.QueryHeads; h++)
        {
            int kv = h / spec.HeadsPerKeyValue;
            var scores = new double[keys.Count];
            for (int j = 0; j < scores.Length; j++)
            {
                for (int c = 0; c < d; c++) scores[j] += query[h * d + c] * keys[j][kv * d + c];
                scores[j] *= scale;
            }

            double largest = scores.Max(), total = 0;
            var sum = new double[dv];
            for (int j = 0; j < scores.Length; j++)
            {
                double weight = Math.Exp(scores[j] - largest);
                total += weight;
                for (int e = 0; e < dv; e++) sum[e] += weight * values[j][kv * dv + e];
            }

            for (int e = 0; e < dv; e++) output[h * dv + e] = sum[e] / total;
        }

        return output;
    }
}
