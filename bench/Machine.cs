using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Treeline.Bench;

/// <summary>The machine's own limits, measured: what kernels are compared with. A figure of one day means nothing on another.</summary>
internal static unsafe class Machine
{
    private const int Chains = 24;                          // more independent chains than the units' latency times their number
    private const int Rounds = 20_000;

    /// <summary>Threads that measure: as many as the backend's.</summary>
    public static int Threads => Environment.ProcessorCount;

    /// <summary>Reads a buffer once, each thread its share.</summary>
    public static float Read(float* buffer, long count)
    {
        var sums = new float[Threads];
        Parallel.For(0, Threads, thread =>
        {
            long from = count / Threads * thread & ~127L, to = thread == Threads - 1 ? count & ~127L : count / Threads * (thread + 1) & ~127L;
            Vector512<float> a = default, b = default, c = default, d = default;
            for (long i = from; i < to; i += 64)
            {
                a += Vector512.Load(buffer + i);
                b += Vector512.Load(buffer + i + 16);
                c += Vector512.Load(buffer + i + 32);
                d += Vector512.Load(buffer + i + 48);
            }

            sums[thread] = Vector512.Sum(a + b + c + d);
        });
        return sums.Sum();
    }

    /// <summary>Multiply-adds that touch no memory.</summary>
    /// <returns>The number of floating-point operations done.</returns>
    public static double MultiplyAdd()
    {
        var sums = new float[Threads];
        Parallel.For(0, Threads, thread => sums[thread] = Spin());
        return 2.0 * Chains * Vector512<float>.Count * Rounds * Threads;
    }

    /// <summary>A buffer larger than the caches.</summary>
    public static float* Buffer(long count)
    {
        var buffer = (float*)NativeMemory.AlignedAlloc((nuint)(count * sizeof(float)), 64);
        new Span<float>(buffer, checked((int)count)).Fill(1e-3f);
        return buffer;
    }

    private static float Spin()
    {
        Vector512<float> x = Vector512.Create(0.999f), y = Vector512.Create(1e-3f);
        Vector512<float> a = y, b = y, c = y, d = y, e = y, f = y, g = y, h = y, i = y, j = y, k = y, l = y;
        Vector512<float> m = y, n = y, o = y, p = y, q = y, r = y, s = y, t = y, u = y, v = y, w = y, z = y;
        for (int round = 0; round < Rounds; round++)
        {
            a = Vector512.FusedMultiplyAdd(a, x, y); b = Vector512.FusedMultiplyAdd(b, x, y); c = Vector512.FusedMultiplyAdd(c, x, y);
            d = Vector512.FusedMultiplyAdd(d, x, y); e = Vector512.FusedMultiplyAdd(e, x, y); f = Vector512.FusedMultiplyAdd(f, x, y);
            g = Vector512.FusedMultiplyAdd(g, x, y); h = Vector512.FusedMultiplyAdd(h, x, y); i = Vector512.FusedMultiplyAdd(i, x, y);
            j = Vector512.FusedMultiplyAdd(j, x, y); k = Vector512.FusedMultiplyAdd(k, x, y); l = Vector512.FusedMultiplyAdd(l, x, y);
            m = Vector512.FusedMultiplyAdd(m, x, y); n = Vector512.FusedMultiplyAdd(n, x, y); o = Vector512.FusedMultiplyAdd(o, x, y);
            p = Vector512.FusedMultiplyAdd(p, x, y); q = Vector512.FusedMultiplyAdd(q, x, y); r = Vector512.FusedMultiplyAdd(r, x, y);
            s = Vector512.FusedMultiplyAdd(s, x, y); t = Vector512.FusedMultiplyAdd(t, x, y); u = Vector512.FusedMultiplyAdd(u, x, y);
            v = Vector512.FusedMultiplyAdd(v, x, y); w = Vector512.FusedMultiplyAdd(w, x, y); z = Vector512.FusedMultiplyAdd(z, x, y);
        }

        return Vector512.Sum(a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r + s + t + u + v + w + z);
    }
}
