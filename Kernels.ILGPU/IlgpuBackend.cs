using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>The kernels on one ILGPU accelerator: CUDA, OpenCL, or ILGPU's own CPU accelerator (slow, for debugging).</summary>
/// <remarks>Ops are queued on one stream, in order. Kernels compile at their first use and stay with the device for the process's life.</remarks>
public sealed partial class IlgpuBackend : KernelBackend
{
    private readonly Device _device;

    internal IlgpuBackend(Device device)
    {
        _device = device;
        Stream = device.Accelerator.CreateStream();
    }

    /// <inheritdoc/>
    public override string Name => _device.Name;

    /// <inheritdoc/>
    public override string Description => Devices.Describe(Accelerator.Device);

    /// <inheritdoc/>
    public override bool IsLosslessToTheBit => true;

    /// <summary>ILGPU's accelerator: for programs that queue kernels of their own beside ours.</summary>
    public Accelerator Accelerator => _device.Accelerator;

    /// <summary>The stream that every op is queued on.</summary>
    public AcceleratorStream Stream { get; }

    /// <inheritdoc/>
    protected override DeviceBuffer AllocateCore(long bytes) => new IlgpuBuffer(this, bytes);

    /// <inheritdoc/>
    protected override DeviceBuffer WrapCore(nint pointer, long bytes) => new IlgpuBuffer(this, new ForeignMemory(Accelerator, pointer, bytes), bytes);

    /// <inheritdoc/>
    protected override void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from)
    {
        ArgumentNullException.ThrowIfNull(to);
        (int pieces, int bytes) = Pieces(to, from.Length);
        for (int i = 0; i < pieces; i++) Piece(to, i, bytes).CopyFromCPU(Stream, from.Slice(i * bytes, bytes));
        Stream.Synchronize();                               // the caller may reuse the span
    }

    /// <inheritdoc/>
    protected override void ReadCore(DeviceTensor from, Span<byte> to)
    {
        ArgumentNullException.ThrowIfNull(from);
        (int pieces, int bytes) = Pieces(from, to.Length);
        for (int i = 0; i < pieces; i++) Piece(from, i, bytes).CopyToCPU(Stream, to.Slice(i * bytes, bytes));
        Stream.Synchronize();
    }

    /// <inheritdoc/>
    protected override void SynchronizeCore() => Stream.Synchronize();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        Stream.Synchronize();
        DisposeWidened();
        _flash.Dispose();
        foreach (IDisposable? scratch in (IDisposable?[])[_acceptTables, _unused, _largest, _draws, _drawn, _cuts]) scratch?.Dispose();
        Stream.Dispose();
        Devices.Return(_device);
    }

    /// <summary>What launches a kernel: compiled at the device's first use of it, kept with the device for the process's life.</summary>
    /// <param name="launcher">Where this backend keeps it.</param>
    /// <param name="kernel">A static method; one that begins with an index runs once for each index, others say their groups at the launch.</param>
    private T Load<T>(ref T? launcher, Delegate kernel) where T : Delegate => launcher ??= _device.Load<T>(kernel.Method);

    /// <summary>In how many pieces of how many bytes a tensor crosses to or from the host: one, or one a row where rows have gaps.</summary>
    private static (int Pieces, int Bytes) Pieces(DeviceTensor tensor, int total) =>
        total == 0 ? (0, 0) : tensor.IsDense ? (1, total) : (tensor.Rows, total / tensor.Rows);

    private static ArrayView<byte> Piece(DeviceTensor tensor, int row, int bytes) =>
        ((IlgpuBuffer)tensor.Buffer).View.SubView((tensor.Offset + row * tensor.RowStride) * tensor.Type.Size(), bytes);
}
