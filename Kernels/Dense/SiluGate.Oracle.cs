using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void SiluGateCore(DeviceTensor gate, DeviceTensor up, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(gate);
        for (int i = 0; i < gate.Rows; i++)
        {
            double[] x = Row(gate, i), y = Row(up, i);
            for (int c = 0; c < x.Length; c++) x[c] *= Sigmoid(x[c]) * y[c];
            Store(output, i, x);
        }
    }
}
