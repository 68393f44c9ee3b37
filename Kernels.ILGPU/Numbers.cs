using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>Narrow numbers by their bits: OpenCL devices need not know them, and ILGPU has no bfloat16.</summary>
internal static class Numbers
{
    public static float FromBFloat16(ushort bits) => Interop.IntAsFloat((uint)bits << 16);

    public static float FromFloat16(ushort bits)
    {
        uint sign = (uint)(bits & 0x8000) << 16, exponent = (uint)(bits >> 10) & 31, fraction = (uint)bits & 0x3FF;
        if (exponent == 31) return Interop.IntAsFloat(sign | 0x7F800000 | (fraction << 13));
        if (exponent != 0) return Interop.IntAsFloat(sign | ((exponent + 112) << 23) | (fraction << 13));
        float small = fraction * (1f / 16777216);           // subnormal: fraction · 2^-24, exactly
        return sign != 0 ? -small : small;
    }

    /// <summary>Rounds to the nearest bfloat16, ties to even; NaN stays NaN.</summary>
    public static ushort ToBFloat16(float x)
    {
        uint bits = Interop.FloatAsInt(x);
        if ((bits & 0x7FFFFFFF) > 0x7F800000) return (ushort)((bits >> 16) | 0x40);
        return (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }

    /// <summary>Rounds to the nearest float16, ties to even; too large becomes infinity, NaN stays NaN.</summary>
    public static ushort ToFloat16(float x)
    {
        uint bits = Interop.FloatAsInt(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
        if (magnitude > 0x7F800000) return (ushort)(sign | 0x7E00);
        if (magnitude >= 0x477FF000) return (ushort)(sign | 0x7C00);
        if (magnitude >= 0x38800000) return (ushort)(sign | ((magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13));
        if (magnitude < 0x33000000) return (ushort)sign;
        // Subnormal: the fraction in units of 2^-24.
        uint fraction = (magnitude & 0x7FFFFF) | 0x800000;
        int shift = 126 - (int)(magnitude >> 23);
        uint kept = fraction >> shift, rest = fraction & ((1u << shift) - 1), half = 1u << (shift - 1);
        if (rest > half || (rest == half && (kept & 1) != 0)) kept++;
        return (ushort)(sign | kept);
    }
}
