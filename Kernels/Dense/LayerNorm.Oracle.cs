using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void LayerNormCore(DeviceTensor input, DeviceTensor gain, DeviceTensor bias, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        double[] scale = All(gain), shift = All(bias);
        for (int i = 0; i < input.Rows; i++)
        {
            double[] x = Row(input, i);
            double sum = 0, squares = 0;
            foreach (double c in x) sum += c;
            double mean = sum / x.Length;
            foreach (double c in x) squares += (c - mean) * (c - mean);
            double deviation = Math.Sqrt(squares / x.Length + epsilon);
            for (int c = 0; c < x.Length; c++) x[c] = (x[c] - mean) / deviation * scale[c] + shift[c];
            Store(output, i, x);
        }
    }
}
