using System.Runtime.InteropServices;
using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int WidenSlots = 4;                       // the most float inputs that an op has

    // ILGPU counts threads in 32 bits, rounds them up to whole groups, and a loop over a row steps past its end.
    private const int MostThreads = int.MaxValue - ushort.MaxValue;

    private readonly DeviceArray<float>?[] _widened = new DeviceArray<float>?[WidenSlots];
    private int[] _integers = [];
    private Action<AcceleratorStream, Index1D, ArrayView<ushort>, long, ArrayView<float>, int>? _widenBFloat16;
    private Action<AcceleratorStream, Index1D, ArrayView<ushort>, long, ArrayView<float>, int>? _widenFloat16;

    /// <summary>A tensor's elements from its first one on, rows <see cref="DeviceTensor.RowStride"/> apart.</summary>
    internal static ArrayView<T> Elements<T>(DeviceTensor tensor) where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(tensor);
        RequireReachable(tensor, tensor.Offset);
        return ((IlgpuBuffer)tensor.Buffer).View.SubView(tensor.Offset * tensor.Type.Size(), Extent(tensor) * tensor.Type.Size()).Cast<T>();
    }

    /// <summary>Refuses a view that would begin where OpenCL gives none.</summary>
    /// <param name="tensor">Whose memory it is of.</param>
    /// <param name="first">Its first element.</param>
    private static void RequireReachable(DeviceTensor tensor, long first)
    {
        if (first > int.MaxValue && ((IlgpuBuffer)tensor.Buffer).IsOpenCL)
            throw new NotSupportedException($"{tensor.Backend.Name}: a view that begins at element {first} of its memory: at most {int.MaxValue} on OpenCL; allocate it by itself");
    }

    /// <summary>Elements from a tensor's first to its last one, gaps included.</summary>
    private static long Extent(DeviceTensor tensor) => tensor.Count == 0 ? 0 : (tensor.Rows - 1) * tensor.RowStride + tensor.RowLength;

    /// <summary>An input as float32: in place, or narrow numbers widened beside it, rows without gaps.</summary>
    /// <param name="tensor">The input.</param>
    /// <param name="slot">Which of an op's inputs it is: each has memory of its own.</param>
    private Rows Floats(DeviceTensor tensor, int slot)
    {
        if (tensor.Type == ElementType.Float32 || tensor.Count == 0) return new Rows(tensor.Count == 0 ? default : Elements<float>(tensor), tensor.RowStride);
        Index1D threads = Threads(tensor.Count);
        ArrayView<float> wide = (_widened[slot] ??= new DeviceArray<float>(this)).Reserve(tensor.Count);
        Action<AcceleratorStream, Index1D, ArrayView<ushort>, long, ArrayView<float>, int> widen = tensor.Type == ElementType.BFloat16
            ? Load(ref _widenBFloat16, WidenBFloat16Kernel)
            : Load(ref _widenFloat16, WidenFloat16Kernel);
        widen(Stream, threads, Elements<ushort>(tensor), tensor.RowStride, wide, tensor.RowLength);
        return new Rows(wide, tensor.RowLength);
    }

    /// <summary>Takes the memory that <see cref="Floats"/> will need for an input of such a type.</summary>
    private void ReserveFloats(DeviceTensor tensor, int slot, long count)
    {
        if (tensor.Type != ElementType.Float32 && count > 0) (_widened[slot] ??= new DeviceArray<float>(this)).Reserve(count);
    }

    /// <summary>Integers of a tensor on the host: as it wrote them, or read back; valid until the next call.</summary>
    private ReadOnlySpan<int> HostIntegers(DeviceTensor tensor)
    {
        if (tensor.Count > Array.MaxLength) throw new NotSupportedException($"{Name}: {tensor.Count} integers of {tensor.Describe()}: at most {Array.MaxLength} are looked at on the host");
        int count = (int)tensor.Count;
        if (tensor.IsDense && ((IlgpuBuffer)tensor.Buffer).TryWritten(tensor.Offset, count, out ReadOnlySpan<int> written)) return written;
        if (_integers.Length < count) _integers = new int[Math.Max(count, 2 * _integers.Length)];
        Span<int> integers = _integers.AsSpan(0, count);
        ReadCore(tensor, MemoryMarshal.AsBytes(integers));
        return integers;
    }

    /// <summary>Takes note that an op, already queued, writes indices from 0 to count - 1.</summary>
    private static void NoteIndices(DeviceTensor indices, int count)
    {
        var buffer = (IlgpuBuffer)indices.Buffer;
        if (count == 0) buffer.Integers = default;
        else buffer.Integers = buffer.Integers.Overwritten(new IntegerBounds(indices.Offset, Extent(indices), 0, count - 1), indices.IsDense);
    }

    /// <summary>Takes note that an op, about to be queued, writes integers of which nothing is known.</summary>
    private static void ForgetIntegers(DeviceTensor integers) => ((IlgpuBuffer)integers.Buffer).Integers = default;

    /// <summary>Refuses indices outside 0 to count - 1: a device would read whatever lies there. They come back to be looked at where nothing is known of them.</summary>
    private void RequireIndices(DeviceTensor indices, int count, string name)
    {
        if (((IlgpuBuffer)indices.Buffer).Integers.AreIndices(indices.Offset, Extent(indices), count)) return;
        foreach (int index in HostIntegers(indices))
            if ((uint)index >= (uint)count) throw new ArgumentException($"{name}: expected 0 to {count - 1}, got {index}", name);
    }

    private static Rows Output(DeviceTensor tensor) => new(Elements<float>(tensor), tensor.RowStride);

    /// <summary>The number of threads of a launch with one thread an element.</summary>
    private static Index1D Threads(long count) => count <= MostThreads ? (int)count
        : throw new NotSupportedException($"an op of {count} elements: at most {MostThreads} are launched at once; give it fewer rows");

    /// <summary>The groups of a launch with a group a row.</summary>
    private KernelConfig RowGroups(int rows, int columns)
    {
        int most = MostThreads / RowThreads;
        return rows <= most && columns <= MostThreads
            ? new KernelConfig(rows, RowThreads)
            : throw new NotSupportedException($"an op of {rows} rows of {columns}: at most {most} rows of {MostThreads} are launched at once");
    }

    /// <summary>The same for rows that are looked through without sums of float32, so that their result does not depend on the number of threads, but for the rounding of float64. A CPU takes one: of more, OpenCL compilers make loops, and take their time over it.</summary>
    private KernelConfig SearchGroups(int rows, int columns) => UsesPatches ? new KernelConfig(RowGroups(rows, columns).GridDim, new Index3D(1, 1, 1)) : RowGroups(rows, columns);

    /// <summary>The groups of a launch that cuts its work along several axes.</summary>
    /// <param name="x">Groups on the first axis, whose threads are counted in 32 bits.</param>
    /// <param name="y">Groups on the second axis, of which CUDA takes 65,535.</param>
    /// <param name="z">Groups on the third, as on the second.</param>
    /// <param name="threads">Threads of a group, all on the first axis.</param>
    private KernelConfig Groups(long x, long y, long z, int threads)
    {
        (int mostX, int mostY, int mostZ) = (MostThreads / threads, Accelerator.MaxGridSize.Y, Accelerator.MaxGridSize.Z);
        return x <= mostX && y <= mostY && z <= mostZ
            ? new KernelConfig(new Index3D((int)x, (int)y, (int)z), new Index3D(threads, 1, 1))
            : throw new NotSupportedException($"{Name}: a launch of {x} x {y} x {z} groups of {threads}: at most {mostX} x {mostY} x {mostZ} are launched at once; give it fewer rows");
    }

    // One thread an element.
    private static void WidenBFloat16Kernel(Index1D index, ArrayView<ushort> from, long stride, ArrayView<float> to, int rowLength) =>
        to[index] = Numbers.FromBFloat16(from[index / rowLength * stride + index % rowLength]);

    private static void WidenFloat16Kernel(Index1D index, ArrayView<ushort> from, long stride, ArrayView<float> to, int rowLength) =>
        to[index] = Numbers.FromFloat16(from[index / rowLength * stride + index % rowLength]);

    private void DisposeWidened()
    {
        foreach (DeviceArray<float>? array in _widened) array?.Dispose();
    }
}

/// <summary>Float32 rows in device memory.</summary>
internal readonly struct Rows(ArrayView<float> data, long stride)
{
    public readonly ArrayView<float> Data = data;
    public readonly long Stride = stride;

    public ref float this[long row, int column] => ref Data[row * Stride + column];
}
