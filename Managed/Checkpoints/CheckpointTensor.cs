using System.Runtime.InteropServices;
using Treeline.Kernels;

namespace Treeline;

/// <summary>A named tensor of a checkpoint: row-major without gaps, used where it lies in the mapped file.</summary>
/// <remarks>Its memory stays valid until the checkpoint is disposed.</remarks>
public sealed class CheckpointTensor
{
    private readonly int[] _shape;
    private readonly ElementType? _type;
    private readonly Func<nint> _address;

    internal CheckpointTensor(string file, string name, string storedType, ElementType? type, int[] shape, long byteLength, Func<nint> address)
    {
        (File, Name, StoredType, _type, _shape, ByteLength, _address) = (file, name, storedType, type, shape, byteLength, address);
    }

    /// <summary>The name that the checkpoint gives it.</summary>
    public string Name { get; }

    /// <summary>The file that holds it.</summary>
    public string File { get; }

    /// <summary>The file's own word for its element type, of types that no kernel reads too.</summary>
    public string StoredType { get; }

    /// <summary>True where kernels can read its element type.</summary>
    public bool IsSupported => _type is not null;

    /// <summary>What one element is.</summary>
    /// <exception cref="CheckpointException">It is of a type that no kernel reads.</exception>
    public ElementType ElementType => _type
        ?? throw new CheckpointException(File, Name, $"elements of type {StoredType} are not supported; supported are F32, BF16, F16, F64, I64, I32 and U8");

    /// <summary>Its sizes, outermost first; empty for a single number.</summary>
    public ReadOnlySpan<int> Shape => _shape;

    /// <summary>Number of elements.</summary>
    public long Count => ByteLength / ElementType.Size();

    /// <summary>Number of bytes.</summary>
    public long ByteLength { get; }

    /// <summary>Where its first element lies; valid until the checkpoint is disposed.</summary>
    /// <exception cref="CheckpointException">Its bytes turn out to be damaged (compressed entries are unpacked at first use).</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint is closed.</exception>
    public nint Pointer => ElementType is var _ ? _address() : 0;

    /// <summary>True where the first element's address is a multiple of its size, as kernels want it; files may place a tensor anywhere.</summary>
    public bool IsAligned => Pointer % ElementType.Size() == 0;

    /// <summary>Its bytes; valid until the checkpoint is disposed.</summary>
    /// <exception cref="CheckpointException">It holds more bytes than a span can: use <see cref="Pointer"/>.</exception>
    public unsafe ReadOnlySpan<byte> Data => ByteLength <= int.MaxValue
        ? new ReadOnlySpan<byte>((void*)Pointer, (int)ByteLength)
        : throw new CheckpointException(File, Name, $"{ByteLength} bytes are more than one span can hold");

    /// <summary>Its numbers as float32, copied; float64 and 64-bit integers are rounded.</summary>
    /// <exception cref="CheckpointException">It holds more numbers than an array can.</exception>
    public float[] ToFloat32()
    {
        var numbers = new float[ArrayLength()];
        Each((bytes, from) =>
        {
            Span<float> to = numbers.AsSpan(from);
            switch (ElementType)
            {
                case ElementType.Float32: bytes.CopyTo(MemoryMarshal.AsBytes(to)); break;
                case ElementType.BFloat16: Widen<BFloat16>(bytes, to, static x => x); break;
                case ElementType.Float16: Widen<Half>(bytes, to, static x => (float)x); break;
                case ElementType.Float64: Widen<double>(bytes, to, static x => (float)x); break;
                case ElementType.Int32: Widen<int>(bytes, to, static x => x); break;
                case ElementType.Int64: Widen<long>(bytes, to, static x => x); break;
                case ElementType.UInt8: Widen<byte>(bytes, to, static x => x); break;
            }
        });
        return numbers;
    }

    /// <summary>Its whole numbers as 32-bit integers, copied: token ids, parents.</summary>
    /// <exception cref="CheckpointException">It does not hold integers, or one of them does not fit into 32 bits.</exception>
    public int[] ToInt32()
    {
        if (ElementType.IsFloat()) throw new CheckpointException(File, Name, $"expected integers, got {StoredType}");
        var numbers = new int[ArrayLength()];
        Each((bytes, from) =>
        {
            for (int i = 0, size = ElementType.Size(); i < bytes.Length / size; i++)
            {
                long number = ElementType switch
                {
                    ElementType.Int64 => BitConverter.ToInt64(bytes[(i * size)..]),
                    ElementType.Int32 => BitConverter.ToInt32(bytes[(i * size)..]),
                    _ => bytes[i],
                };
                if (number != (int)number) throw new CheckpointException(File, Name, $"[{from + i}]: {number} does not fit into 32 bits");
                numbers[from + i] = (int)number;
            }
        });
        return numbers;
    }

    /// <summary>Checks the shape.</summary>
    /// <param name="shape">The sizes wanted.</param>
    /// <returns>This tensor.</returns>
    /// <exception cref="CheckpointException">It has another shape.</exception>
    public CheckpointTensor Require(params ReadOnlySpan<int> shape)
    {
        if (Shape.SequenceEqual(shape)) return this;
        throw new CheckpointException(File, Name, $"expected shape [{string.Join(", ", shape.ToArray())}], got [{string.Join(", ", _shape)}]");
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Name} {StoredType} [{string.Join(", ", _shape)}]";

    /// <summary>Bytes of a shape, null where they pass the range of 64 bits.</summary>
    internal static long? Bytes(ReadOnlySpan<int> shape, int elementSize)
    {
        Int128 bytes = elementSize;
        foreach (int size in shape)
        {
            if (size == 0) return 0;
            bytes *= size;
            if (bytes > long.MaxValue) bytes = Int128.MaxValue / int.MaxValue;          // stays too large, whatever follows
        }

        return bytes > long.MaxValue ? null : (long)bytes;
    }

    private int ArrayLength() => Count <= Array.MaxLength
        ? (int)Count
        : throw new CheckpointException(File, Name, $"{Count} numbers are more than one array can hold");

    private delegate void Chunk(ReadOnlySpan<byte> bytes, int firstElement);

    // A tensor may hold more bytes than a span can.
    private unsafe void Each(Chunk take)
    {
        const long Most = 1 << 30;
        nint pointer = Pointer;
        for (long at = 0; at < ByteLength; at += Most)
            take(new ReadOnlySpan<byte>((byte*)pointer + at, (int)Math.Min(Most, ByteLength - at)), (int)(at / ElementType.Size()));
    }

    private static unsafe void Widen<T>(ReadOnlySpan<byte> bytes, Span<float> to, Func<T, float> widen) where T : unmanaged
    {
        for (int i = 0; i < bytes.Length / sizeof(T); i++) to[i] = widen(MemoryMarshal.Read<T>(bytes[(i * sizeof(T))..]));
    }
}
