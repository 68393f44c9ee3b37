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
    public ArrayView<T> First(long count) => count == 0 ? default : _buffer!.View.SubView(0, checked(count * Interop.SizeOf<T>())).Cast<T>();

    /// <summary>Room for so many, contents undefined where it had to grow.</summary>
    public ArrayView<T> Reserve(long count)
    {
        if (_length < count || _buffer is null)
        {
            _buffer?.Dispose();                             // waits for what reads it
            (_buffer, _length) = (null, 0);
            long length = count < 1 << 20 ? (long)BitOperations.RoundUpToPowerOf2((ulong)Math.Max(count, 16)) : count;     // small ones grow rarely
            _buffer = new IlgpuBuffer(backend, checked(length * Interop.SizeOf<T>()));
            _length = length;
        }

        return First(count);
    }

    /// <summary>Holds a copy of host numbers; the span may be reused when this returns.</summary>
    public ArrayView<T> Upload(ReadOnlySpan<T> numbers)
    {
        ArrayView<T> view = Reserve(numbers.Length);
        _buffer!.Write(0, MemoryMarshal.AsBytes(numbers));
        return view;
    }

    /// <summary>Copies its first numbers to the host, after the work that writes them.</summary>
    public void Download(Span<T> numbers) => _buffer!.Read(0, MemoryMarshal.AsBytes(numbers));

    public void Dispose() => _buffer?.Dispose();
}
