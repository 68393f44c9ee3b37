using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void GeluCore(DeviceTensor input, GeluForm form, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        for (int i = 0; i < input.Rows; i++)
        {
            double[] x = Row(input, i);
            for (int c = 0; c < x.Length; c++)
            {
                x[c] = x[c] / 2 * (1 + (form == GeluForm.Exact
                    ? Erf(x[c] / Math.Sqrt(2))
                    : Math.Tanh(Math.Sqrt(2 / Math.PI) * (x[c] + 0.044715 * x[c] * x[c] * x[c]))));
            }

            Store(output, i, x);
        }
    }

    /// <summary>The error function by the series 2x/√π · exp(-x²) · Σ (2x²)ⁿ / (1·3·5···(2n+1)): all terms have one sign, nothing cancels.</summary>
    internal static double Erf(double x)
    {
        if (Math.Abs(x) > 6) return Math.Sign(x);           // 1 - |erf| is below 1e-16 there
        double term = 1, sum = 1;
        for (int n = 1; term > 1e-17 * sum; n++)
        {
            term *= 2 * x * x / (2 * n + 1);
            sum += term;
        }

        return 2 * x / Math.Sqrt(Math.PI) * Math.Exp(-x * x) * sum;
    }
}
