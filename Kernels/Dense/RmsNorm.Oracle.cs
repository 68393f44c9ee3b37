using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void RmsNormCore(DeviceTensor input, DeviceTensor gain, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        double[] scale = All(gain);
        for (int i = 0; i < input.Rows; i++)
        {
            double[] x = Row(input, i);
            double squares = 0;
            foreach (double c in x) squares += c * c;
            double root = Math.Sqrt(squares / x.Length + epsilon);
            for (int c = 0; c < x.Length; c++) x[c] = x[c] / root * scale[c];
            Store(output, i, x);
        }
    }
}
