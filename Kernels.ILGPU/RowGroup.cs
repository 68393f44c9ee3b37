using global::ILGPU;
using global::ILGPU.Algorithms;

namespace Treeline.Kernels.ILGPU;

/// <summary>A group of threads that works on one row: of 32 threads, thread t takes columns t, t + 32, …; sums over the group follow one fixed tree.</summary>
internal static class RowGroup
{
    /// <summary>Threads in the group on a CPU, and all that ILGPU's own accelerator has.</summary>
    public const int Size = 32;

    /// <summary>Threads in the group on a GPU, where a row's numbers are fetched by many threads at once. A device has the same number for every row, so that a row's bits are its own.</summary>
    public const int Most = 256;

    /// <summary>The sum of every thread's number, for all of them. All threads of the group must call it.</summary>
    public static float Sum(ArrayView<float> shared, float own)
    {
        int thread = Group.IdxX;
        shared[thread] = own;
        Group.Barrier();
        for (int half = Group.DimX / 2; half > 0; half /= 2)
        {
            if (thread < half) shared[thread] += shared[thread + half];
            Group.Barrier();
        }

        float sum = shared[0];
        Group.Barrier();                                    // before the next use overwrites it
        return sum;
    }

    /// <summary>The largest of every thread's number.</summary>
    public static float Max(ArrayView<float> shared, float own)
    {
        int thread = Group.IdxX;
        shared[thread] = own;
        Group.Barrier();
        for (int half = Group.DimX / 2; half > 0; half /= 2)
        {
            if (thread < half) shared[thread] = Larger(shared[thread], shared[thread + half]);
            Group.Barrier();
        }

        float largest = shared[0];
        Group.Barrier();
        return largest;
    }

    /// <summary>The larger of two numbers; NaN where one of them is.</summary>
    public static float Larger(float a, float b) => a > b || XMath.IsNaN(a) ? a : b;
}
