using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, ArrayView<float>, long, int, int, Rows, Rows, int, int, int>? _rotary;

    /// <inheritdoc/>
    protected override void RotaryCore(DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs)
    {
        ArgumentNullException.ThrowIfNull(vectors);
        ArgumentNullException.ThrowIfNull(cosines);
        int heads = vectors.Shape[1], count = cosines.RowLength;
        long threads = (long)vectors.Rows * heads * count;
        if (threads == 0) return;
        (int step, int partner) = pairs == RotaryPairs.Halves ? (1, count) : (2, 1);
        Load(ref _rotary, RotaryKernel)(
            Stream, Threads(threads), Elements<float>(vectors), vectors.RowStride, heads, vectors.Shape[2], Output(cosines), Output(sines), count, step, partner);
    }

    // One thread a pair: channels pair·step and pair·step + partner of a head.
    private static void RotaryKernel(Index1D index, ArrayView<float> vectors, long stride, int heads, int headDim, Rows cosines, Rows sines, int count, int step, int partner)
    {
        int pair = index % count, rest = index / count, head = rest % heads, row = rest / heads;
        long a = row * stride + head * headDim + pair * step, b = a + partner;
        float x = vectors[a], y = vectors[b], cosine = cosines[row, pair], sine = sines[row, pair];
        vectors[a] = x * cosine - y * sine;
        vectors[b] = y * cosine + x * sine;
    }
}
