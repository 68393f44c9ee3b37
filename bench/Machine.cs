using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Treeline.Bench;

/// <summary>The machine's own limits, measured: what kernels are compared with. A figure of one day means nothing on another.</summary>
internal static unsafe class Machine
{
    private const int Chains = 12;                          // independent multiply-adds in flight; more do not fit 16 registers
    private const int Rounds = 40_000;

    /// <summary>Threads that measure: as many as the backend's.</summary>
    public static int Threads => Environment.ProcessorCount;

    /// <summary>Reads a buffer once, each thread its share.</summary>
    public static float Read(float* buffer, long count)
    {
        var sums = new float[Threads];
        Parallel.For(0, Threads, thread =>
        {
            long from = count / Threads * thread & ~63L, to = (thread == Threads - 1 ? count : count / Threads * (thread + 1)) & ~63L;
            sums[thread] = Vector512.IsHardwareAccelerated ? Sum512(buffer + from, to - from) : Sum256(buffer + from, to - from);
        });
        return sums.Sum();
    }

    /// <summary>Multiply-adds that touch no memory.</summary>
    /// <returns>The number of floating-point operations done.</returns>
    public static double MultiplyAdd()
    {
        var sums = new float[Threads];
        bool wide = Vector512.IsHardwareAccelerated;
        Parallel.For(0, Threads, thread => sums[thread] = wide ? Spin512() : Spin256());
        return 2.0 * Chains * (wide ? Vector512<float>.Count : Vector256<float>.Count) * Rounds * Threads;
    }

    /// <summary>A buffer of numbers; the caller frees it.</summary>
    public static float* Buffer(long count)
    {
        var buffer = (float*)NativeMemory.AlignedAlloc((nuint)(count * sizeof(float)), 64);
        new Span<float>(buffer, checked((int)count)).Fill(1e-3f);
        return buffer;
    }

    private static float Sum512(float* from, long count)
    {
        Vector512<float> a = default, b = default, c = default, d = default;
        for (long i = 0; i < count; i += 64)
        {
            a += Vector512.Load(from + i);
            b += Vector512.Load(from + i + 16);
            c += Vector512.Load(from + i + 32);
            d += Vector512.Load(from + i + 48);
        }

        return Vector512.Sum(a + b + c + d);
    }

    private static float Sum256(float* from, long count)
    {
        Vector256<float> a = default, b = default, c = default, d = default;
        for (long i = 0; i < count; i += 32)
        {
            a += Vector256.Load(from + i);
            b += Vector256.Load(from + i + 8);
            c += Vector256.Load(from + i + 16);
            d += Vector256.Load(from + i + 24);
        }

        return Vector256.Sum(a + b + c + d);
    }

    private static float Spin512()
    {
        Vector512<float> x = Vector512.Create(0.999f), y = Vector512.Create(1e-3f);
        Vector512<float> a = y, b = y, c = y, d = y, e = y, f = y, g = y, h = y, i = y, j = y, k = y, l = y;
        for (int round = 0; round < Rounds; round++)
        {
            a = Vector512.FusedMultiplyAdd(a, x, y);
            b = Vector512.FusedMultiplyAdd(b, x, y);
            c = Vector512.FusedMultiplyAdd(c, x, y);
            d = Vector512.FusedMultiplyAdd(d, x, y);
            e = Vector512.FusedMultiplyAdd(e, x, y);
            f = Vector512.FusedMultiplyAdd(f, x, y);
            g = Vector512.FusedMultiplyAdd(g, x, y);
            h = Vector512.FusedMultiplyAdd(h, x, y);
            i = Vector512.FusedMultiplyAdd(i, x, y);
            j = Vector512.FusedMultiplyAdd(j, x, y);
            k = Vector512.FusedMultiplyAdd(k, x, y);
            l = Vector512.FusedMultiplyAdd(l, x, y);
        }

        return Vector512.Sum(a + b + c + d + e + f + g + h + i + j + k + l);
    }

    private static float Spin256()
    {
        Vector256<float> x = Vector256.Create(0.999f), y = Vector256.Create(1e-3f);
        Vector256<float> a = y, b = y, c = y, d = y, e = y, f = y, g = y, h = y, i = y, j = y, k = y, l = y;
        for (int round = 0; round < Rounds; round++)
        {
            a = Vector256.FusedMultiplyAdd(a, x, y);
            b = Vector256.FusedMultiplyAdd(b, x, y);
            c = Vector256.FusedMultiplyAdd(c, x, y);
            d = Vector256.FusedMultiplyAdd(d, x, y);
            e = Vector256.FusedMultiplyAdd(e, x, y);
            f = Vector256.FusedMultiplyAdd(f, x, y);
            g = Vector256.FusedMultiplyAdd(g, x, y);
            h = Vector256.FusedMultiplyAdd(h, x, y);
            i = Vector256.FusedMultiplyAdd(i, x, y);
            j = Vector256.FusedMultiplyAdd(j, x, y);
            k = Vector256.FusedMultiplyAdd(k, x, y);
            l = Vector256.FusedMultiplyAdd(l, x, y);
        }

        return Vector256.Sum(a + b + c + d + e + f + g + h + i + j + k + l);
    }
}
