using System.Runtime.InteropServices;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private float[] _cosines = [], _sines = [], _frequencies = [];

    /// <inheritdoc/>
    protected override void RotaryAnglesCore(RotarySpec spec, DeviceTensor positions, DeviceTensor cosines, DeviceTensor sines)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(positions);
        ArgumentNullException.ThrowIfNull(cosines);
        ArgumentNullException.ThrowIfNull(sines);
        if (cosines.Count == 0) return;
        // On the host: a position of 100,000 needs its angle reduced in float64, which not every device has, and the numbers are few.
        if (cosines.Count > Array.MaxLength) throw new NotSupportedException($"an op of {cosines.Count} elements: at most {Array.MaxLength} are computed at once; give it fewer positions");
        int pairs = spec.RotaryDim / 2, count = positions.Rows * pairs;
        if (_cosines.Length < count) (_cosines, _sines) = (new float[count], new float[count]);
        if (_frequencies.Length < pairs) _frequencies = new float[pairs];
        Span<float> frequencies = _frequencies.AsSpan(0, pairs);
        ReadOnlySpan<int> at = HostIntegers(positions);
        for (int i = 0; i < at.Length; i++)
        {
            if (i == 0 || spec.Scaling == RotaryScaling.Dynamic) spec.Frequencies(at[i], frequencies);
            for (int j = 0; j < pairs; j++)
            {
                (double sine, double cosine) = Math.SinCos(at[i] * frequencies[j]);
                (_cosines[i * pairs + j], _sines[i * pairs + j]) = ((float)cosine, (float)sine);
            }
        }

        WriteCore(cosines, MemoryMarshal.AsBytes(_cosines.AsSpan(0, count)));
        WriteCore(sines, MemoryMarshal.AsBytes(_sines.AsSpan(0, count)));
    }
}
