using global::ILGPU;
using global::ILGPU.Algorithms;

namespace Treeline.Kernels.ILGPU;

/// <summary>The order of logits: NaN first so that it is seen, then falling numbers, among equals the lowest index.</summary>
internal static class Ranking
{
    /// <summary>True where a stands before b.</summary>
    public static bool IsBefore(float x, int a, float y, int b)
    {
        bool xNaN = XMath.IsNaN(x), yNaN = XMath.IsNaN(y);
        if (xNaN || yNaN) return xNaN && (!yNaN || a < b);
        return x > y || (x == y && a < b);
    }

    /// <summary>The first in order of what each thread of a group has found (index -1: nothing), for all of them.</summary>
    public static int First(ArrayView<float> values, ArrayView<int> indices, float value, int index)
    {
        int thread = Group.IdxX;
        values[thread] = value;
        indices[thread] = index;
        Group.Barrier();
        for (int half = Group.DimX / 2; half > 0; half /= 2)
        {
            if (thread < half)
            {
                int own = indices[thread], other = indices[thread + half];
                if (other >= 0 && (own < 0 || IsBefore(values[thread + half], other, values[thread], own)))
                {
                    values[thread] = values[thread + half];
                    indices[thread] = other;
                }
            }

            Group.Barrier();
        }

        int first = indices[0];
        Group.Barrier();                                    // before the next use overwrites it
        return first;
    }
}
