using System.Numerics;
using System.Runtime.InteropServices;
using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Memory of an ILGPU accelerator.</summary>
internal sealed class IlgpuBuffer : DeviceBuffer
{
    private const int MostKept = 1 << 16;                   // integers of which the host keeps a copy: ids and positions, not data

    private const int MostQueued = 1 << 20;                 // bytes that are copied on the host so that it need not wait

    private readonly IlgpuBackend _backend;
    private readonly MemoryBuffer _memory;
    private readonly DeviceMemory? _owner;                  // null: somebody else's
    private bool _disposed;
    private byte[] _queued = [];
    private long _queuedAt = -1;                            // the host's waits when it was last queued from
    private int[] _written = [];
    private long _writtenFirst;
    private int _writtenCount;
    private long _losses;                                   // as many as there were when its integers were noted

    /// <summary>Allocates zeroed memory.</summary>
    public IlgpuBuffer(IlgpuBackend backend, long bytes) : base(backend, bytes)
    {
        _backend = backend;
        // ILGPU has no empty buffers; whole words let every element type be viewed.
        _memory = backend.Memory.Take(backend, Math.Max(16, checked(bytes + 15) / 16 * 16));
        _owner = backend.Memory;
        View = _memory.AsRawArrayView();
    }

    /// <summary>Uses memory that somebody else owns and keeps alive.</summary>
    public IlgpuBuffer(IlgpuBackend backend, ForeignMemory memory, long bytes) : base(backend, bytes)
    {
        _backend = backend;
        _memory = memory;
        View = memory.View;
    }

    /// <summary>Memory that is dropped undisposed waits for the work that may still be using it.</summary>
    ~IlgpuBuffer() => Dispose(false);

    /// <summary>All of it.</summary>
    public ArrayView<byte> View { get; }

    /// <inheritdoc/>
    public override bool IsDisposed => _disposed;

    /// <summary>What is known of its integers. Whatever writes them says so (<see cref="IlgpuBackend"/>); of somebody else's memory nothing is ever known, and nothing any more once queued work was lost.</summary>
    public IntegerBounds Integers
    {
        get => _losses == _backend.Losses ? field : default;
        set
        {
            field = _owner is null ? default : value;
            _losses = _backend.Losses;
            _writtenCount = 0;
        }
    }

    /// <summary>Keeps a copy of integers that the host has just written without gaps, until something else is noted of the buffer's.</summary>
    public void KeepWritten(long first, ReadOnlySpan<int> numbers)
    {
        if (_owner is null || numbers.Length > MostKept) return;
        if (_written.Length < numbers.Length) _written = new int[Math.Min(MostKept, Math.Max(numbers.Length, 2 * _written.Length))];
        numbers.CopyTo(_written);
        (_writtenFirst, _writtenCount) = (first, numbers.Length);
    }

    /// <summary>Integers as the host wrote them, where they are still what lies there.</summary>
    public bool TryWritten(long first, int count, out ReadOnlySpan<int> numbers)
    {
        bool kept = _losses == _backend.Losses && first >= _writtenFirst && first + count <= _writtenFirst + _writtenCount;
        numbers = kept ? _written.AsSpan((int)(first - _writtenFirst), count) : default;
        return kept;
    }

    /// <summary>The device's handle: an address, or a <c>cl_mem</c>.</summary>
    public nint Handle => _memory.NativePtr;

    /// <summary>True where kernels get it as a handle and a place, not as an address.</summary>
    public bool IsOpenCL => _backend.Accelerator is CLAccelerator;

    /// <summary>Copies host bytes to a place; the span may be reused when this returns.</summary>
    /// <remarks>By the driver's own calls: ILGPU's copies allocate on the host.</remarks>
    public unsafe void Write(long offset, ReadOnlySpan<byte> from)
    {
        if (from.IsEmpty) return;
        fixed (byte* host = from)
        {
            try
            {
                switch (_backend.Accelerator)
                {
                    case CLAccelerator: CLException.ThrowIfFailed(CLAPI.CurrentAPI.WriteBuffer(_backend.Stream, Handle, true, (nint)offset, from.Length, (nint)host)); break;
                    case CudaAccelerator: CudaCopy(Handle + (nint)offset, (nint)host, from.Length); break;
                    default: from.CopyTo(new Span<byte>((byte*)Handle + offset, from.Length)); break;
                }

                _backend.Waits++;
            }
            catch (AcceleratorException e)
            {
                throw _backend.Failed(e);
            }
        }
    }

    /// <summary>Copies host bytes to its start; the span may be reused when this returns, the copy happens in the order of the queue.</summary>
    /// <remarks>On OpenCL through memory of its own, so that the host waits only where an earlier copy from there may still be under way.</remarks>
    public void Queue(ReadOnlySpan<byte> from)
    {
        if (!IsOpenCL || from.Length > MostQueued)
        {
            Write(0, from);
            return;
        }

        if (from.IsEmpty) return;
        if (_queuedAt == _backend.Waits) _backend.Wait();
        if (_queued.Length < from.Length) _queued = GC.AllocateUninitializedArray<byte>((int)BitOperations.RoundUpToPowerOf2((uint)from.Length), pinned: true);
        from.CopyTo(_queued);
        try
        {
            CLException.ThrowIfFailed(CLAPI.CurrentAPI.WriteBuffer(_backend.Stream, Handle, false, 0, from.Length, Marshal.UnsafeAddrOfPinnedArrayElement(_queued, 0)));
        }
        catch (AcceleratorException e)
        {
            throw _backend.Failed(e);
        }

        _queuedAt = _backend.Waits;
    }

    /// <summary>Copies a place to host bytes, after the work that writes it.</summary>
    public unsafe void Read(long offset, Span<byte> to)
    {
        if (to.IsEmpty) return;
        fixed (byte* host = to)
        {
            try
            {
                switch (_backend.Accelerator)
                {
                    case CLAccelerator: CLException.ThrowIfFailed(CLAPI.CurrentAPI.ReadBuffer(_backend.Stream, Handle, true, (nint)offset, to.Length, (nint)host)); break;
                    case CudaAccelerator: CudaCopy((nint)host, Handle + (nint)offset, to.Length); break;
                    default: new ReadOnlySpan<byte>((byte*)Handle + offset, to.Length).CopyTo(to); break;
                }

                _backend.Waits++;
            }
            catch (AcceleratorException e)
            {
                throw _backend.Failed(e);
            }
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_disposed) return;
        _disposed = true;
        if (disposing) _backend.WaitQuietly();              // before somebody else's memory is free again, too
        if (_owner is null) return;
        if (disposing) _owner.GiveBack(_memory);
        else _owner.Drop(_memory, _queued);
    }

    private void CudaCopy(nint to, nint from, int bytes)
    {
        using ScopedAcceleratorBinding binding = _backend.Accelerator.BindScoped();
        CudaException.ThrowIfFailed(CudaAPI.CurrentAPI.MemcpyAsync(to, from, bytes, _backend.Stream));
        _backend.Stream.Synchronize();
    }
}
