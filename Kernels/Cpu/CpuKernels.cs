namespace Treeline.Kernels;

/// <summary>The kernels of the CPU backend, behind one virtual call each: an op's file adds an abstract method here and its override to <see cref="CpuKernels{S, V}"/>.</summary>
internal abstract unsafe partial class CpuKernels
{
    /// <summary>Lanes of their vectors.</summary>
    public abstract int Width { get; }

    /// <summary>The kernels for a width: 16, 8, 4 or 1.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There are none of that width.</exception>
    public static CpuKernels For(int width) => width switch
    {
        16 => new CpuKernels<Simd512, System.Runtime.Intrinsics.Vector512<float>>(),
        8 => new CpuKernels<Simd256, System.Runtime.Intrinsics.Vector256<float>>(),
        4 => new CpuKernels<Simd128, System.Runtime.Intrinsics.Vector128<float>>(),
        1 => new CpuKernels<Simd1, float>(),
        _ => throw new ArgumentOutOfRangeException(nameof(width), width, "expected 16, 8, 4 or 1 lanes"),
    };
}

/// <summary>The kernels for one vector width.</summary>
/// <typeparam name="S">The operations on a vector.</typeparam>
/// <typeparam name="V">The vector.</typeparam>
internal sealed unsafe partial class CpuKernels<S, V> : CpuKernels
    where S : struct, ISimd<V>
    where V : unmanaged
{
    public override int Width => S.Width;
}
