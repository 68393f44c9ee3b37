using ILGPU;
using ILGPU.Runtime;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;

namespace Treeline.Tests.Harness;

/// <summary>Keeps a device busy for a large part of a second, a GPU for a few.</summary>
internal static class SlowKernel
{
    /// <summary>Queues it on the backend's stream.</summary>
    /// <param name="backend">The backend.</param>
    /// <param name="number">A tensor of its own, four bytes of which it writes.</param>
    public static void Launch(IlgpuBackend backend, DeviceTensor number)
    {
        ArrayView<int> result = ((IlgpuBuffer)number.Buffer).View.Cast<int>();
        Action<AcceleratorStream, Index1D, ArrayView<int>, int>? launch = null;
        foreach (int rounds in (int[])[0, 200_000_000])     // the first launch of all would be waited for
            backend.Load(ref launch, Kernel)(backend.Stream, 1, result, rounds);
    }

    // One thread; each number comes from the one before, and no compiler makes one step of many.
    private static void Kernel(Index1D index, ArrayView<int> result, int rounds)
    {
        int x = result[index];
        for (int i = 0; i < rounds; i++) x = (x ^ (x >> 7)) * 1664525 + 1013904223;
        result[index] = x;
    }
}
