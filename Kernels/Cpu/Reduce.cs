using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

internal sealed unsafe partial class CpuKernels<S, V>
{
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

    /// <summary>Copies up to 16 numbers and fills up to 16 with zeros: how the rest of a row becomes whole vectors.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static void CopyPadded(float* from, int n, float* to)
    {
        for (int i = 0; i < n; i++) to[i] = from[i];
        for (int i = n; i < 16; i++) to[i] = 0;
    }
}
