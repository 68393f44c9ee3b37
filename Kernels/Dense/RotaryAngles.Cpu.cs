namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void RotaryAnglesCore(RotarySpec spec, DeviceTensor positions, DeviceTensor cosines, DeviceTensor sines)
    {
        ArgumentNullException.ThrowIfNull(spec);
        ArgumentNullException.ThrowIfNull(positions);
        ArgumentNullException.ThrowIfNull(cosines);
        ArgumentNullException.ThrowIfNull(sines);
        int pairs = spec.RotaryDim / 2;
        var frequencies = new Span<float>(Threads.Shared(pairs), pairs);
        for (int i = 0; i < positions.Rows; i++)
        {
            int position = positions.Pointer<int>()[i * (nint)positions.RowStride];
            if (i == 0 || spec.Scaling == RotaryScaling.Dynamic) spec.Frequencies(position, frequencies);
            float* cosine = cosines.Pointer<float>() + i * (nint)cosines.RowStride, sine = sines.Pointer<float>() + i * (nint)sines.RowStride;
            for (int j = 0; j < pairs; j++)
            {
                float angle = position * frequencies[j];
                (double s, double c) = Math.SinCos(angle);  // float64: at position 100,000 the angle needs its range reduced well
                (cosine[j], sine[j]) = ((float)c, (float)s);
            }
        }
    }
}
