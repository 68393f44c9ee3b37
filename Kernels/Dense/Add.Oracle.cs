using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(left);
        for (int i = 0; i < left.Rows; i++)
        {
            double[] sum = Row(left, i), other = Row(right, i);
            for (int c = 0; c < sum.Length; c++) sum[c] += other[c];
            Store(output, i, sum);
        }
    }
}
