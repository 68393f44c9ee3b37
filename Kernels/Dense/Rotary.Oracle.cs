using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void RotaryCore(DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs)
    {
        ArgumentNullException.ThrowIfNull(vectors);
        int heads = vectors.Shape[1], dim = vectors.Shape[2];
        for (int i = 0; i < vectors.Rows; i++)
        {
            double[] x = Row(vectors, i), cosine = Row(cosines, i), sine = Row(sines, i);
            for (int h = 0; h < heads; h++)
            {
                for (int j = 0; j < cosine.Length; j++)
                {
                    int a = h * dim + (pairs == RotaryPairs.Halves ? j : 2 * j);
                    int b = h * dim + (pairs == RotaryPairs.Halves ? j + cosine.Length : 2 * j + 1);
                    (x[a], x[b]) = (x[a] * cosine[j] - x[b] * sine[j], x[b] * cosine[j] + x[a] * sine[j]);
                }
            }

            Store(vectors, i, x);
        }
    }
}
