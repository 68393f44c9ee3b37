using System.Globalization;

namespace Treeline.Kernels;

/// <summary>The upper 16 bits of an IEEE 754 binary32: its exponent range with 8 bits of precision.</summary>
/// <remarks>Storage only: kernels widen to float32 (exact) and round back to the nearest, ties to even.</remarks>
/// <param name="bits">The stored bits.</param>
public readonly struct BFloat16(ushort bits) : IEquatable<BFloat16>
{
    /// <summary>The stored bits.</summary>
    public ushort Bits { get; } = bits;

    /// <summary>Widens without loss.</summary>
    /// <param name="value">The value to widen.</param>
    public static implicit operator float(BFloat16 value) => BitConverter.UInt32BitsToSingle((uint)value.Bits << 16);

    /// <summary>Rounds to the nearest, ties to even; NaN stays NaN (quiet).</summary>
    /// <param name="value">The value to round.</param>
    public static explicit operator BFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        if (float.IsNaN(value)) return new BFloat16((ushort)((bits >> 16) | 0x40));
        return new BFloat16((ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16));
    }

    /// <summary>Widens without loss (for languages without operators).</summary>
    public float ToSingle() => this;

    /// <summary>Rounds to the nearest, ties to even (for languages without operators).</summary>
    /// <param name="value">The value to round.</param>
    public static BFloat16 FromSingle(float value) => (BFloat16)value;

    /// <summary>Equal as numbers: NaN differs from itself, +0 equals -0.</summary>
    /// <param name="left">One value.</param>
    /// <param name="right">The other.</param>
    public static bool operator ==(BFloat16 left, BFloat16 right) => (float)left == (float)right;

    /// <summary>The opposite of equality.</summary>
    /// <param name="left">One value.</param>
    /// <param name="right">The other.</param>
    public static bool operator !=(BFloat16 left, BFloat16 right) => !(left == right);

    /// <inheritdoc/>
    public bool Equals(BFloat16 other) => ((float)this).Equals(other);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is BFloat16 other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => ((float)this).GetHashCode();

    /// <inheritdoc/>
    public override string ToString() => ((float)this).ToString(CultureInfo.InvariantCulture);
}
