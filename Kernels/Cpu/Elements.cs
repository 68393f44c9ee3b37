using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>A type that float numbers are stored as; kernels take it as a type parameter and widen as they load.</summary>
internal unsafe interface IElement
{
    /// <summary>Bytes of one number.</summary>
    static abstract int Size { get; }

    static abstract float Get(void* from, nint index);

    /// <summary>Rounds to the nearest, ties to even.</summary>
    static abstract void Set(void* to, nint index, float value);

    static abstract V Load<S, V>(void* from, nint index) where S : struct, ISimd<V> where V : unmanaged;
}

internal readonly unsafe struct Float32Element : IElement
{
    public static int Size => 4;

    public static float Get(void* from, nint index) => ((float*)from)[index];

    public static void Set(void* to, nint index, float value) => ((float*)to)[index] = value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<S, V>(void* from, nint index) where S : struct, ISimd<V> where V : unmanaged => S.Load((float*)from + index);
}

internal readonly unsafe struct BFloat16Element : IElement
{
    public static int Size => 2;

    public static float Get(void* from, nint index) => ((BFloat16*)from)[index];

    public static void Set(void* to, nint index, float value) => ((BFloat16*)to)[index] = (BFloat16)value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<S, V>(void* from, nint index) where S : struct, ISimd<V> where V : unmanaged => S.LoadBFloat16((ushort*)from + index);
}

internal readonly unsafe struct Float16Element : IElement
{
    public static int Size => 2;

    public static float Get(void* from, nint index) => (float)((Half*)from)[index];

    public static void Set(void* to, nint index, float value) => ((Half*)to)[index] = (Half)value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<S, V>(void* from, nint index) where S : struct, ISimd<V> where V : unmanaged => S.LoadHalf((ushort*)from + index);
}
