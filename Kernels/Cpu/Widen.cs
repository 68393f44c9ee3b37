namespace Treeline.Kernels;

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Copies numbers of any float input type to float32, exactly.</summary>
    /// <param name="type">What they are stored as: float32, bfloat16 or float16.</param>
    /// <param name="from">The numbers; nothing past them is read.</param>
    /// <param name="n">How many.</param>
    /// <param name="to">Receives them; nothing past them is written.</param>
    public abstract void Widen(ElementType type, void* from, nint n, float* to);
}

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override void Widen(ElementType type, void* from, nint n, float* to)
    {
        if (type == ElementType.Float32)
        {
            Buffer.MemoryCopy(from, to, n * sizeof(float), n * sizeof(float));
            return;
        }

        var bits = (ushort*)from;
        nint i = 0;
        if (type == ElementType.BFloat16)
        {
            for (; i + S.Width <= n; i += S.Width) S.Store(to + i, S.LoadBFloat16(bits + i));
            for (; i < n; i++) to[i] = Simd1.LoadBFloat16(bits + i);
        }
        else
        {
            for (; i + S.Width <= n; i += S.Width) S.Store(to + i, S.LoadHalf(bits + i));
            for (; i < n; i++) to[i] = Simd1.LoadHalf(bits + i);
        }
    }
}
