using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>Memory of an ILGPU accelerator.</summary>
internal sealed class IlgpuBuffer : DeviceBuffer
{
    private readonly MemoryBuffer1D<byte, Stride1D.Dense>? _owned;
    private bool _disposed;

    /// <summary>Allocates zeroed memory.</summary>
    public IlgpuBuffer(IlgpuBackend backend, long bytes) : base(backend, bytes)
    {
        // ILGPU has no empty buffers; whole words let every element type be viewed.
        long size = Math.Max(16, (bytes + 15) / 16 * 16);
        try
        {
            _owned = backend.Accelerator.Allocate1D<byte>(size);
        }
        catch (Exception e) when (e is AcceleratorException or OutOfMemoryException or OverflowException)
        {
            throw new OutOfDeviceMemoryException($"{backend.Name}: asked for {bytes} bytes, the device has {backend.Accelerator.MemorySize}", e);
        }

        _owned.MemSetToZero(backend.Stream);
        View = _owned.View.AsContiguous();
    }

    /// <summary>Uses memory that somebody else owns and keeps alive.</summary>
    public IlgpuBuffer(IlgpuBackend backend, ForeignMemory memory, long bytes) : base(backend, bytes) => View = memory.View;

    /// <summary>All of it.</summary>
    public ArrayView<byte> View { get; }

    /// <inheritdoc/>
    public override bool IsDisposed => _disposed;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_disposed) return;
        _disposed = true;
        if (disposing) _owned?.Dispose();
    }
}
