using System.Numerics;
using System.Runtime.InteropServices;
using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>An array in device memory that grows: what it held is lost when it does.</summary>
internal sealed class DeviceArray<T>(IlgpuBackend backend) : IDisposable where T : unmanaged
{
    private IlgpuBuffer? _buffer;
    private long _length;

    /// <summary>Its first numbers.</summary>
    /// <exception cref="OutOfDeviceMemoryException">It has lost its memory, and had none since.</exception>
    public ArrayView<T> First(long count) => count == 0 ? default : Buffer.View.SubView(0, checked(count * Interop.SizeOf<T>())).Cast<T>();

    private IlgpuBuffer Buffer => _buffer
        ?? throw new OutOfDeviceMemoryException($"{backend.Name}: scratch memory was given up to take more, and there was no longer enough to take it again, free {backend.Memory.Free} of {backend.Memory.Total}");

    /// <summary>Room for so many, contents undefined where it had to grow; where that fails there is as much room as before, unless somebody else has taken that meanwhile.</summary>
    public ArrayView<T> Reserve(long count)
    {
        if (_length < count || _buffer is null)
        {
            long before = _length;
            _buffer?.Dispose();                             // waits for what reads it
            (_buffer, _length) = (null, 0);
            try
            {
                Take(count < 1 << 20 ? (long)BitOperations.RoundUpToPowerOf2((ulong)Math.Max(count, 16)) : count);     // small ones grow rarely
            }
            catch (OutOfDeviceMemoryException) when (before > 0)
            {
                Take(before);                               // a step that reserved it may be under way
                throw;
            }
        }

        return First(count);
    }

    /// <summary>Holds a copy of host numbers; the span may be reused when this returns, and the copy happens in the order of the queue.</summary>
    public ArrayView<T> Upload(ReadOnlySpan<T> numbers)
    {
        ArrayView<T> view = Reserve(numbers.Length);
        Buffer.Queue(MemoryMarshal.AsBytes(numbers));
        return view;
    }

    /// <summary>Copies its first numbers to the host, after the work that writes them.</summary>
    public void Download(Span<T> numbers) => Buffer.Read(0, MemoryMarshal.AsBytes(numbers));

    public void Dispose() => _buffer?.Dispose();

    private void Take(long length) => (_buffer, _length) = (new IlgpuBuffer(backend, checked(length * Interop.SizeOf<T>())), length);
}
