using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>An array in device memory that grows: what it held is lost when it does.</summary>
internal sealed class DeviceArray<T>(IlgpuBackend backend) : IDisposable where T : unmanaged
{
    private IlgpuBuffer? _buffer;
    private long _length;

    /// <summary>Its first numbers.</summary>
    public ArrayView<T> First(long count) => count == 0 ? default : _buffer!.View.Cast<T>().SubView(0, count);

    /// <summary>Room for so many, contents undefined where it had to grow.</summary>
    public ArrayView<T> Reserve(long count)
    {
        if (_length < count || _buffer is null)
        {
            backend.Stream.Synchronize();                   // what reads the old one may still run
            long length = Math.Max(count, 16);
            var larger = new IlgpuBuffer(backend, checked(length * Interop.SizeOf<T>()));
            _buffer?.Dispose();
            (_buffer, _length) = (larger, length);
        }

        return First(count);
    }

    /// <summary>Holds a copy of host numbers.</summary>
    public ArrayView<T> Upload(ReadOnlySpan<T> numbers)
    {
        ArrayView<T> view = Reserve(numbers.Length);
        if (numbers.IsEmpty) return view;
        view.CopyFromCPU(backend.Stream, numbers);
        backend.Stream.Synchronize();                       // the caller may reuse the span
        return view;
    }

    public void Dispose() => _buffer?.Dispose();
}
