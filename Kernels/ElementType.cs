namespace Treeline.Kernels;

/// <summary>What one element of a <see cref="DeviceTensor"/> is.</summary>
public enum ElementType
{
    /// <summary>IEEE 754 binary32.</summary>
    Float32,

    /// <summary>The upper half of a binary32, see <see cref="Kernels.BFloat16"/>.</summary>
    BFloat16,

    /// <summary>IEEE 754 binary16, <see cref="Half"/>.</summary>
    Float16,

    /// <summary>IEEE 754 binary64; only the oracle computes with it.</summary>
    Float64,

    /// <summary>Signed 32-bit integer.</summary>
    Int32,

    /// <summary>Signed 64-bit integer.</summary>
    Int64,

    /// <summary>Unsigned byte.</summary>
    UInt8,
}

/// <summary>Sizes of element types and the .NET types behind them.</summary>
public static class ElementTypes
{
    /// <summary>Bytes of one element.</summary>
    /// <param name="type">The element type.</param>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of the enumeration's.</exception>
    public static int Size(this ElementType type) => type switch
    {
        ElementType.UInt8 => 1,
        ElementType.BFloat16 or ElementType.Float16 => 2,
        ElementType.Float32 or ElementType.Int32 => 4,
        ElementType.Float64 or ElementType.Int64 => 8,
        _ => throw new ArgumentOutOfRangeException(nameof(type), type, "unknown element type"),
    };

    /// <summary>True for the types that hold real numbers.</summary>
    /// <param name="type">The element type.</param>
    public static bool IsFloat(this ElementType type) =>
        type is ElementType.Float32 or ElementType.BFloat16 or ElementType.Float16 or ElementType.Float64;

    /// <summary>The element type that a .NET type stands for.</summary>
    /// <typeparam name="T">float, <see cref="BFloat16"/>, <see cref="Half"/>, double, int, long or byte.</typeparam>
    /// <exception cref="NotSupportedException">No element type is stored as <typeparamref name="T"/>.</exception>
    public static ElementType Of<T>() where T : unmanaged
    {
        if (typeof(T) == typeof(float)) return ElementType.Float32;
        if (typeof(T) == typeof(BFloat16)) return ElementType.BFloat16;
        if (typeof(T) == typeof(Half)) return ElementType.Float16;
        if (typeof(T) == typeof(double)) return ElementType.Float64;
        if (typeof(T) == typeof(int)) return ElementType.Int32;
        if (typeof(T) == typeof(long)) return ElementType.Int64;
        if (typeof(T) == typeof(byte)) return ElementType.UInt8;
        throw new NotSupportedException($"no tensor holds elements of type {typeof(T).Name}");
    }
}
