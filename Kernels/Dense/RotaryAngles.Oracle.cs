using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void RotaryAnglesCore(RotarySpec spec, DeviceTensor positions, DeviceTensor cosines, DeviceTensor sines)
    {
        ArgumentNullException.ThrowIfNull(spec);
        int[] at = Integers(positions);
        var frequencies = new float[spec.RotaryDim / 2];
        var cosine = new double[frequencies.Length];
        var sine = new double[frequencies.Length];
        for (int i = 0; i < at.Length; i++)
        {
            spec.Frequencies(at[i], frequencies);
            for (int j = 0; j < frequencies.Length; j++)
            {
                float angle = at[i] * frequencies[j];       // rounded to float32, as the checkpoints were trained
                cosine[j] = Math.Cos(angle);
                sine[j] = Math.Sin(angle);
            }

            Store(cosines, i, cosine);
            Store(sines, i, sine);
        }
    }
}
