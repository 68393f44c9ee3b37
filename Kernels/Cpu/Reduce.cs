using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Σ x², in the one order of the backend's sums along channels.</summary>
    /// <param name="x">The numbers; nothing past them is read.</param>
    /// <param name="n">How many.</param>
    public abstract float SumSquares(float* x, int n);

    /// <summary>Σ x, in the same order.</summary>
    /// <param name="x">The numbers; nothing past them is read.</param>
    /// <param name="n">How many.</param>
    public abstract float Sum(float* x, int n);

    /// <summary>The largest number, NaN where there is one; -∞ of none.</summary>
    /// <param name="x">The numbers; nothing past them is read.</param>
    /// <param name="n">How many.</param>
    public abstract float Max(float* x, int n);
}

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override float SumSquares(float* x, int n) => SumOfSquares(x, n);

    /// <summary>
    /// The one order in which channels are summed where no output runs along them: 16 partial sums by channel mod 16, then halves onto halves.
    /// The bits are the same for every vector width.
    /// </summary>
    /// <param name="sums">The 16 partial sums; overwritten.</param>
    internal static float SumOf16(float* sums)
    {
        for (int half = 8; half > 0; half /= 2)
            for (int i = 0; i < half; i++) sums[i] += sums[i + half];
        return sums[0];
    }

    /// <summary>Σ x², in the order of <see cref="SumOf16"/>.</summary>
    /// <param name="x">The numbers; nothing past them is read.</param>
    /// <param name="n">How many.</param>
    internal static float SumOfSquares(float* x, int n)
    {
        float* sums = stackalloc float[16], rest = stackalloc float[16];
        int whole = n & ~15;
        if (whole < n) CopyPadded(x + whole, n - whole, rest);
        for (int lane = 0; lane < 16; lane += S.Width)
        {
            V sum = S.Broadcast(0);
            for (int i = lane; i < whole; i += 16)
            {
                V value = S.Load(x + i);
                sum = S.MultiplyAdd(value, value, sum);
            }

            if (whole < n)
            {
                V value = S.Load(rest + lane);
                sum = S.MultiplyAdd(value, value, sum);
            }

            S.Store(sums + lane, sum);
        }

        return SumOf16(sums);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override float Sum(float* x, int n)
    {
        float* sums = stackalloc float[16];
        int whole = n & ~15;
        for (int lane = 0; lane < 16; lane += S.Width)
        {
            V sum = S.Broadcast(0);
            for (int i = lane; i < whole; i += 16) sum = S.Add(S.Load(x + i), sum);
            S.Store(sums + lane, sum);
        }

        for (int i = whole; i < n; i++) sums[i - whole] += x[i];
        return SumOf16(sums);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override float Max(float* x, int n)
    {
        float* lanes = stackalloc float[16];
        V max = S.Broadcast(float.NegativeInfinity);
        int i = 0;
        for (; i <= n - S.Width; i += S.Width) max = S.Max(S.Load(x + i), max);
        S.Store(lanes, max);
        float largest = lanes[0];
        for (int lane = 1; lane < S.Width; lane++) largest = MathF.Max(largest, lanes[lane]);
        for (; i < n; i++) largest = MathF.Max(largest, x[i]);
        return largest;
    }

    /// <summary>Copies up to 16 numbers and fills up to 16 with zeros: how the rest of a row becomes whole vectors.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void CopyPadded(float* from, int n, float* to)
    {
        for (int i = 0; i < n; i++) to[i] = from[i];
        for (int i = n; i < 16; i++) to[i] = 0;
    }
}
