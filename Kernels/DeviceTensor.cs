namespace Treeline.Kernels;

/// <summary>A block of numbers in a backend's memory: element type, shape, strides.</summary>
/// <remarks>
/// Made by <see cref="KernelBackend.Allocate"/> (owns its memory), <see cref="KernelBackend.Wrap"/> (foreign memory) or as a view of another one.
/// Views share memory and own nothing: disposing one is harmless, disposing the owner ends them all. Kernels want the inner dimensions contiguous;
/// the stride of the first dimension (the rows) is free, so that a part of a fused projection is used in place.
/// </remarks>
public sealed class DeviceTensor : IDisposable
{
    private readonly int[] _shape;
    private readonly long[] _strides;
    private readonly bool _owner;
    private DeviceTensor?[]? _firstRows;                    // views of the first n rows, by n: a steady step makes none anew

    internal DeviceTensor(DeviceBuffer buffer, ElementType type, ReadOnlySpan<int> shape, ReadOnlySpan<long> strides, long offset, bool owner)
    {
        Buffer = buffer;
        Type = type;
        _shape = shape.ToArray();
        _strides = strides.ToArray();
        Offset = offset;
        _owner = owner;
        Count = CountOf(shape);
        long row = shape.IsEmpty ? 1 : CountOf(shape[1..]);
        if (row > int.MaxValue) throw new ArgumentException($"shape: expected rows of at most {int.MaxValue} elements, got {DescribeShape(shape)}", nameof(shape));
        RowLength = (int)row;
    }

    /// <summary>The memory that holds the elements.</summary>
    public DeviceBuffer Buffer { get; }

    /// <summary>Whose memory it is.</summary>
    public KernelBackend Backend => Buffer.Backend;

    /// <summary>What one element is.</summary>
    public ElementType Type { get; }

    /// <summary>Sizes of the dimensions, outermost first.</summary>
    public ReadOnlySpan<int> Shape => _shape;

    /// <summary>Distance between neighbours in each dimension, in elements.</summary>
    public ReadOnlySpan<long> Strides => _strides;

    /// <summary>Where the first element lies in <see cref="Buffer"/>, in elements.</summary>
    public long Offset { get; }

    /// <summary>Number of elements.</summary>
    public long Count { get; }

    /// <summary>Size of the first dimension (1 for a scalar).</summary>
    public int Rows => _shape.Length == 0 ? 1 : _shape[0];

    /// <summary>Elements of one row: the product of all dimensions but the first.</summary>
    public int RowLength { get; }

    /// <summary>Distance between rows, in elements.</summary>
    public long RowStride => _shape.Length == 0 ? 0 : _strides[0];

    /// <summary>True where the inner dimensions lie without gaps: what kernels want.</summary>
    public bool HasContiguousRows => IsContiguous(1);

    /// <summary>True where all elements lie without gaps.</summary>
    public bool IsDense => IsContiguous(0);

    /// <summary>The first rows, as a view; the same object each time for the same number.</summary>
    /// <param name="rows">How many, from 0 to <see cref="Rows"/>.</param>
    /// <exception cref="ArgumentOutOfRangeException">There are fewer rows.</exception>
    public DeviceTensor First(int rows)
    {
        if (_shape.Length == 0 || (uint)rows > (uint)_shape[0])
            throw new ArgumentOutOfRangeException(nameof(rows), rows, $"expected 0 to {Rows} rows");
        if (rows == _shape[0]) return this;
        _firstRows ??= new DeviceTensor?[_shape[0]];
        return _firstRows[rows] ??= Slice(0, 0, rows);
    }

    /// <summary>A range of one dimension, as a view.</summary>
    /// <param name="dimension">Which dimension.</param>
    /// <param name="start">First index kept.</param>
    /// <param name="count">How many are kept.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range leaves the dimension, or the dimension does not exist.</exception>
    public DeviceTensor Slice(int dimension, int start, int count)
    {
        if ((uint)dimension >= (uint)_shape.Length)
            throw new ArgumentOutOfRangeException(nameof(dimension), dimension, $"expected 0 to {_shape.Length - 1}");
        if (start < 0 || count < 0 || (long)start + count > _shape[dimension])
            throw new ArgumentOutOfRangeException(nameof(start), $"{start}..{(long)start + count}", $"expected a range inside 0..{_shape[dimension]}");
        int[] shape = [.. _shape];
        shape[dimension] = count;
        return new DeviceTensor(Buffer, Type, shape, _strides, Offset + start * _strides[dimension], owner: false);
    }

    /// <summary>The same elements under another shape, as a view. A row stride survives where the rows stay the same.</summary>
    /// <param name="shape">The new shape, as many elements as before.</param>
    /// <exception cref="ArgumentException">A size is negative, the counts differ, or the elements have gaps that the new shape cannot express.</exception>
    public DeviceTensor View(params ReadOnlySpan<int> shape)
    {
        if (CountOf(shape) != Count)
            throw new ArgumentException($"shape: expected {Count} elements like {Describe()}, got {DescribeShape(shape)}", nameof(shape));
        if (IsDense) return new DeviceTensor(Buffer, Type, shape, DenseStrides(shape), Offset, owner: false);
        if (HasContiguousRows && shape.Length > 0 && shape[0] == Rows)
        {
            long[] strides = DenseStrides(shape);
            strides[0] = RowStride;
            return new DeviceTensor(Buffer, Type, shape, strides, Offset, owner: false);
        }

        throw new ArgumentException($"shape: {Describe()} has gaps between its rows and cannot be seen as {DescribeShape(shape)}", nameof(shape));
    }

    /// <summary>Gives the memory back where this tensor owns it, after a call that another thread has under way; harmless when repeated, and on views.</summary>
    public void Dispose()
    {
        if (!_owner) return;
        using KernelBackend.Call call = Backend.WaitForTurn();
        Buffer.Dispose();
    }

    /// <inheritdoc/>
    public override string ToString() => Describe();

    internal string Describe() => $"{DescribeShape(_shape)} {Type}";

    internal static string DescribeShape(ReadOnlySpan<int> shape) => $"[{string.Join(", ", shape.ToArray())}]";

    internal static long CountOf(ReadOnlySpan<int> shape)
    {
        long count = 1;
        foreach (int size in shape)
        {
            if (size < 0) throw new ArgumentException($"shape: expected sizes of 0 or more, got {DescribeShape(shape)}", nameof(shape));
            if (size > 0 && count > long.MaxValue / sizeof(double) / size)
                throw new ArgumentException($"shape: {DescribeShape(shape)} has more elements than can be addressed", nameof(shape));
            count *= size;
        }

        return count;
    }

    internal static long[] DenseStrides(ReadOnlySpan<int> shape)
    {
        var strides = new long[shape.Length];
        long stride = 1;
        for (int i = shape.Length - 1; i >= 0; i--)
        {
            strides[i] = stride;
            stride *= shape[i];
        }

        return strides;
    }

    /// <summary>Pointer to the first element; only for tensors of a host backend, after their checks.</summary>
    internal unsafe T* Pointer<T>() where T : unmanaged => (T*)((HostBuffer)Buffer).Pointer + Offset;

    private bool IsContiguous(int fromDimension)
    {
        long stride = 1;
        for (int i = _shape.Length - 1; i >= fromDimension; i--)
        {
            if (_shape[i] != 1 && _strides[i] != stride) return false;
            stride *= _shape[i];
        }

        return true;
    }
}
