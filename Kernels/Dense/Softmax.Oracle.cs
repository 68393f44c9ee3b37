using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void SoftmaxCore(DeviceTensor input, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        for (int i = 0; i < input.Rows; i++) Store(output, i, Probabilities(Row(input, i)));
    }

    private static double[] Probabilities(double[] logits)
    {
        if (logits.Length == 0) return [];
        double largest = logits.Max(), total = 0;
        var p = new double[logits.Length];
        for (int c = 0; c < p.Length; c++)
        {
            p[c] = Math.Exp(logits[c] - largest);
            total += p[c];
        }

        for (int c = 0; c < p.Length; c++) p[c] /= total;
        return p;
    }
}
