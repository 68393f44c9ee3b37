using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>Checks of arguments; every message names the argument, what it wants and what it got.</summary>
internal static class TensorChecks
{
    /// <summary>What float inputs may be stored as.</summary>
    public const Types Floats = Types.Float32 | Types.BFloat16 | Types.Float16;

    /// <summary>A set of element types; bit i stands for the enumeration's value i.</summary>
    [Flags]
    public enum Types
    {
        None = 0,
        Float32 = 1 << ElementType.Float32,
        BFloat16 = 1 << ElementType.BFloat16,
        Float16 = 1 << ElementType.Float16,
        Float64 = 1 << ElementType.Float64,
        Int32 = 1 << ElementType.Int32,
        Int64 = 1 << ElementType.Int64,
        UInt8 = 1 << ElementType.UInt8,
    }

    /// <summary>Refuses a tensor of another backend, shape or type, one with gaps inside its rows, and one that was disposed.</summary>
    /// <param name="tensor">The tensor.</param>
    /// <param name="backend">Whose memory it must be.</param>
    /// <param name="types">The element types allowed.</param>
    /// <param name="shape">The shape wanted; -1 stands for any size.</param>
    /// <param name="name">The argument's name, from the call.</param>
    public static void Require(this DeviceTensor tensor, KernelBackend backend, Types types, ReadOnlySpan<int> shape,
        [CallerArgumentExpression(nameof(tensor))] string name = "")
    {
        if (tensor is null) throw new ArgumentNullException(name);
        if (tensor.Buffer.IsDisposed) throw new ObjectDisposedException(name, $"{name}: the tensor's memory was given back");
        if (!ReferenceEquals(tensor.Backend, backend))
            throw new ArgumentException($"{name}: expected memory of {backend.Name}, got memory of {(tensor.Backend.Name == backend.Name ? "another " : "")}{tensor.Backend.Name}", name);
        if (!Fits(tensor.Shape, shape) || ((int)types & (1 << (int)tensor.Type)) == 0)
            throw new ArgumentException($"{name}: expected {DescribeWanted(shape)} {Describe(types)}, got {tensor.Describe()}", name);
        if (!tensor.HasContiguousRows)
            throw new ArgumentException($"{name}: expected contiguous inner dimensions, got {tensor.Describe()} with strides [{string.Join(", ", tensor.Strides.ToArray())}]", name);
        backend.KeepUntilEnd(tensor.Buffer);
    }

    /// <summary>Refuses two tensors that share memory, where an op must not read what it has written.</summary>
    public static void RequireApart(this DeviceTensor output, DeviceTensor input,
        [CallerArgumentExpression(nameof(output))] string name = "", [CallerArgumentExpression(nameof(input))] string other = "")
    {
        // Foreign memory may be wrapped twice: then only the addresses tell.
        bool comparable = ReferenceEquals(output.Buffer, input.Buffer) || (output.Buffer.Address != 0 && input.Buffer.Address != 0);
        if (comparable && Overlap(output, input))
            throw new ArgumentException($"{name}: shares memory with {other}", name);
    }

    private static bool Overlap(DeviceTensor a, DeviceTensor b)
    {
        if (a.Count == 0 || b.Count == 0) return false;
        long aStart = a.Buffer.Address + a.Offset * a.Type.Size(), bStart = b.Buffer.Address + b.Offset * b.Type.Size();
        if (aStart >= bStart + Extent(b) || bStart >= aStart + Extent(a)) return false;
        // Column slices of one matrix interleave without sharing an element.
        long pitch = a.RowStride * a.Type.Size();
        if (pitch > 0 && pitch == b.RowStride * b.Type.Size() && a.Rows > 1 && b.Rows > 1)
        {
            long first = Math.Min(aStart, bStart), aColumn = (aStart - first) % pitch, bColumn = (bStart - first) % pitch;
            long aWidth = (long)a.RowLength * a.Type.Size(), bWidth = (long)b.RowLength * b.Type.Size();
            if (aColumn + aWidth <= pitch && bColumn + bWidth <= pitch)
                return aColumn < bColumn + bWidth && bColumn < aColumn + aWidth;
        }

        return true;
    }

    private static long Extent(DeviceTensor tensor)
    {
        long last = 0;
        for (int i = 0; i < tensor.Shape.Length; i++) last += (tensor.Shape[i] - 1) * tensor.Strides[i];
        return (last + 1) * tensor.Type.Size();
    }

    private static bool Fits(ReadOnlySpan<int> got, ReadOnlySpan<int> wanted)
    {
        if (got.Length != wanted.Length) return false;
        for (int i = 0; i < got.Length; i++)
            if (wanted[i] >= 0 && got[i] != wanted[i]) return false;
        return true;
    }

    private static string DescribeWanted(ReadOnlySpan<int> shape) =>
        $"[{string.Join(", ", shape.ToArray().Select(size => size < 0 ? "any" : size.ToString(System.Globalization.CultureInfo.InvariantCulture)))}]";

    private static string Describe(Types types) => types.ToString().Replace(", ", "|", StringComparison.Ordinal);
}
