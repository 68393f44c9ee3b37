namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void RotaryCore(DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs)
    {
        ArgumentNullException.ThrowIfNull(vectors);
        ForRows(vectors.Rows, vectors.RowLength, new RotaryOp(this, vectors, cosines, sines, pairs));
    }

    private readonly struct RotaryOp(CpuBackend backend, DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs) : IRowOp
    {
        private readonly CpuRows _vectors = new(vectors);
        private readonly CpuRows _cosines = new(cosines);
        private readonly CpuRows _sines = new(sines);
        private readonly int _heads = vectors.Shape[1];
        private readonly int _headDim = vectors.Shape[2];

        public void Run(int row, int worker)
        {
            CpuKernels kernels = backend.Kernels;
            float* x = _vectors.Row(row, kernels, null), cosine = _cosines.Row(row, kernels, null), sine = _sines.Row(row, kernels, null);
            for (int head = 0; head < _heads; head++, x += _headDim)
            {
                if (pairs == RotaryPairs.Halves) kernels.TurnHalves(x, cosine, sine, _cosines.Length);
                else TurnNeighbours(x, cosine, sine, _cosines.Length);
            }
        }

        private static void TurnNeighbours(float* x, float* cosine, float* sine, int pairs)
        {
            for (int j = 0; j < pairs; j++) CpuKernels.Turn<Simd1, float>(x + 2 * j, x + 2 * j + 1, cosine + j, sine + j);
        }
    }
}

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Turns channels j and j + pairs by angle j.</summary>
    public abstract void TurnHalves(float* x, float* cosine, float* sine, int pairs);

    /// <summary>Turns a vector of pairs; one lane gives the same bits as many.</summary>
    public static void Turn<S, V>(float* first, float* second, float* cosine, float* sine) where S : struct, ISimd<V> where V : unmanaged
    {
        V a = S.Load(first), b = S.Load(second), c = S.Load(cosine), s = S.Load(sine);
        S.Store(first, S.MultiplyAdd(a, c, S.Subtract(S.Broadcast(0), S.Multiply(b, s))));
        S.Store(second, S.MultiplyAdd(b, c, S.Multiply(a, s)));
    }
}

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override void TurnHalves(float* x, float* cosine, float* sine, int pairs)
    {
        int j = 0;
        for (; j <= pairs - S.Width; j += S.Width) Turn<S, V>(x + j, x + j + pairs, cosine + j, sine + j);
        for (; j < pairs; j++) Turn<Simd1, float>(x + j, x + j + pairs, cosine + j, sine + j);
    }
}
