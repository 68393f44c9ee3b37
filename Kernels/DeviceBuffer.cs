using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>A piece of a backend's memory.</summary>
public abstract class DeviceBuffer : IDisposable
{
    /// <summary>Creates the buffer's managed side.</summary>
    /// <param name="backend">Whose memory it is.</param>
    /// <param name="bytes">Its size in bytes.</param>
    protected DeviceBuffer(KernelBackend backend, long bytes)
    {
        Backend = backend;
        Bytes = bytes;
    }

    /// <summary>Whose memory it is.</summary>
    public KernelBackend Backend { get; }

    /// <summary>Size in bytes.</summary>
    public long Bytes { get; }

    /// <summary>Where it begins; 0 where addresses are not to be compared.</summary>
    internal virtual nint Address => 0;

    /// <summary>True once the memory has been given back.</summary>
    public abstract bool IsDisposed { get; }

    /// <summary>Gives the memory back (foreign memory is left alone); harmless when repeated.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the memory back.</summary>
    /// <param name="disposing">False from a finalizer.</param>
    protected abstract void Dispose(bool disposing);
}

/// <summary>Memory of the host, 64-byte aligned where it is our own: what the oracle and the CPU backend compute on.</summary>
internal sealed unsafe class HostBuffer : DeviceBuffer
{
    private readonly SafeBufferHandle? _owned;
    private bool _disposed;

    /// <summary>Allocates zeroed memory.</summary>
    public HostBuffer(KernelBackend backend, long bytes) : base(backend, bytes)
    {
        _owned = new SafeBufferHandle(bytes);
        Pointer = (byte*)_owned.DangerousGetHandle();
    }

    /// <summary>Uses memory that somebody else owns and keeps alive.</summary>
    public HostBuffer(KernelBackend backend, nint pointer, long bytes) : base(backend, bytes) => Pointer = (byte*)pointer;

    public byte* Pointer { get; }

    internal override nint Address => (nint)Pointer;

    public override bool IsDisposed => _disposed;

    protected override void Dispose(bool disposing)
    {
        _disposed = true;
        if (disposing) _owned?.Dispose();
    }

    private sealed class SafeBufferHandle : SafeHandle
    {
        public SafeBufferHandle(long bytes) : base(0, ownsHandle: true)
        {
            // A whole vector past the end: loads of a padded last vector stay inside the allocation.
            nuint size = (nuint)bytes + HostMemory.Alignment;
            SetHandle((nint)HostMemory.Allocate(size));
            NativeMemory.Clear((void*)handle, size);
        }

        public override bool IsInvalid => handle == 0;

        protected override bool ReleaseHandle()
        {
            NativeMemory.AlignedFree((void*)handle);
            return true;
        }
    }
}
