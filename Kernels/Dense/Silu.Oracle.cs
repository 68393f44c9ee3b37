using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void SiluCore(DeviceTensor input, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        for (int i = 0; i < input.Rows; i++)
        {
            double[] x = Row(input, i);
            for (int c = 0; c < x.Length; c++) x[c] *= Sigmoid(x[c]);
            Store(output, i, x);
        }
    }

    private static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));
}
