using System.Runtime.InteropServices;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;

namespace Treeline.Kernels.ILGPU;

/// <summary>The kernels on one ILGPU accelerator: CUDA, OpenCL, or ILGPU's own CPU accelerator (slow, for debugging).</summary>
/// <remarks>Ops are queued on one stream, in order. Kernels compile at their first use and stay with the device for the process's life.</remarks>
public sealed partial class IlgpuBackend : KernelBackend
{
    private readonly Device _device;
    private readonly CuBlasProduct? _cuBlas;
    private readonly string _whyNoCuBlas = "";
    private bool _ended;

    internal IlgpuBackend(Device device, BackendOptions options)
    {
        _device = device;
        Stream = device.Accelerator.CreateStream();
        device.Backend = this;
        RowThreads = Devices.IsGpu(device.Accelerator.Device) && device.Accelerator.MaxNumThreadsPerGroup >= RowGroup.Most ? RowGroup.Most : RowGroup.Size;
        UsesPatches = Devices.IsCpu(device.Accelerator.Device);
        if (options.Lossless) _whyNoCuBlas = "cuBLAS is left out: only lossless kernels were asked for";
        else _cuBlas = device.CuBlas(out _whyNoCuBlas);
    }

    /// <inheritdoc/>
    public override string Name => _device.Name;

    /// <inheritdoc/>
    public override string Description => Devices.Describe(Accelerator.Device);

    /// <inheritdoc/>
    public override bool IsLosslessToTheBit => _cuBlas is null;

    /// <summary>ILGPU's accelerator: for programs that queue kernels of their own beside ours.</summary>
    public Accelerator Accelerator => _device.Accelerator;

    /// <summary>The stream that every op is queued on.</summary>
    public AcceleratorStream Stream { get; }

    /// <summary>The kernels that the device has compiled so far, with what their first use took and how often they were launched; a device keeps them over the backends that have it in turn.</summary>
    public IReadOnlyList<KernelUse> Kernels => _device.Kernels;

    /// <summary>Kernels that the device was given so far: the difference around a step is what the step costs in launches.</summary>
    public long Launches
    {
        get
        {
            long launches = 0;
            foreach (KernelUse kernel in _device.Kernels) launches += kernel.Launches;
            return launches;
        }
    }

    /// <summary>Threads of a <see cref="RowGroup"/>, a power of two up to <see cref="RowGroup.Most"/>: what GPUs run is tested on devices that are none.</summary>
    internal int RowThreads { get; set; }

    /// <summary>Times that the host has waited for the device, and the work queued until then was done; what crosses waits too. The difference around a call says whether it only queued.</summary>
    internal long Waits { get; set; }

    /// <summary>The device's memory.</summary>
    internal DeviceMemory Memory => _device.Memory;

    /// <inheritdoc/>
    protected override DeviceBuffer AllocateCore(long bytes) => new IlgpuBuffer(this, bytes);

    /// <inheritdoc/>
    protected override DeviceBuffer WrapCore(nint pointer, long bytes)
    {
        ForeignContext.Require(Name, Accelerator, pointer, bytes);
        return new IlgpuBuffer(this, new ForeignMemory(Accelerator, pointer, bytes), bytes);
    }

    /// <inheritdoc/>
    protected override void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from)
    {
        ArgumentNullException.ThrowIfNull(to);
        (int pieces, int bytes) = Pieces(to, from.Length);
        var buffer = (IlgpuBuffer)to.Buffer;
        IntegerBounds before = buffer.Integers;
        buffer.Integers = default;                          // should it fail half-way
        for (int i = 0; i < pieces; i++) buffer.Write(Start(to, i), from.Slice(i * bytes, bytes));
        if (to.Type != ElementType.Int32 || from.IsEmpty) return;
        ReadOnlySpan<int> integers = MemoryMarshal.Cast<byte, int>(from);
        buffer.Integers = before.Overwritten(IntegerBounds.Of(to.Offset, integers) with { Count = Extent(to) }, to.IsDense);
        if (to.IsDense) buffer.KeepWritten(to.Offset, integers);
    }

    /// <inheritdoc/>
    protected override void ReadCore(DeviceTensor from, Span<byte> to)
    {
        ArgumentNullException.ThrowIfNull(from);
        (int pieces, int bytes) = Pieces(from, to.Length);
        for (int i = 0; i < pieces; i++) ((IlgpuBuffer)from.Buffer).Read(Start(from, i), to.Slice(i * bytes, bytes));
    }

    /// <inheritdoc/>
    protected override void SynchronizeCore() => Wait();

    /// <summary>Waits for the work queued so far.</summary>
    /// <exception cref="BackendFaultedException">It failed.</exception>
    internal void Wait()
    {
        try
        {
            Stream.Synchronize();
            Waits++;
        }
        catch (AcceleratorException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Waits for the work queued so far, for what gives memory back: an error comes with the next call.</summary>
    internal void WaitQuietly()
    {
        if (_ended || IsFaulted) return;
        try
        {
            Stream.Synchronize();
            Waits++;
        }
        catch (AcceleratorException e)
        {
            Fault(e);
        }
    }

    /// <summary>The exception to throw for an error of the device: out of memory leaves the backend usable, anything else does not.</summary>
    internal Exception Failed(Exception e)
    {
        if (!DeviceMemory.IsOutOfMemory(e)) return Fault(e);
        Losses++;
        return new OutOfDeviceMemoryException($"{Name}: no memory for the work queued, free {Memory.Free} of {Memory.Total}", e);
    }

    /// <summary>How often the device was out of memory for work, which may have been queued long before: what it was to write is not there.</summary>
    internal long Losses { get; private set; }

    /// <inheritdoc/>
    protected override string DescribeCore(AttentionSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return $"{Name}: {spec.Attention}, lossless to the bit";
    }

    /// <inheritdoc/>
    protected override string DescribeCore(WeightForm form) => form == WeightForm.Float32 && _cuBlas is not null
        ? $"{_cuBlas.Name}, not lossless to the bit"
        : $"own kernel, lossless to the bit{(Accelerator is CudaAccelerator && _cuBlas is null ? $" ({_whyNoCuBlas})" : "")}";

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        WaitQuietly();
        DisposeWidened();
        _flash.Dispose();
        foreach (IDisposable? scratch in (IDisposable?[])[_acceptTables, _unused, _largest, _draws, _drawn, _cuts, _softmaxParts]) scratch?.Dispose();
        Memory.GiveBackDropped(this);
        _ended = true;
        _device.Backend = null;
        if (IsFaulted)
        {
            _device.Discard();
            return;
        }

        Stream.Dispose();
        Devices.Return(_device);
    }

    /// <summary>What launches a kernel: compiled at the device's first use of it, kept with the device for the process's life.</summary>
    /// <param name="launcher">Where this backend keeps it.</param>
    /// <param name="kernel">A static method; one that begins with an index runs once for each index, others say their groups at the launch.</param>
    internal T Load<T>(ref T? launcher, Delegate kernel) where T : Delegate => launcher ??= _device.Load<T>(kernel.Method);

    /// <summary>In how many pieces of how many bytes a tensor crosses to or from the host: one, or one a row where rows have gaps.</summary>
    private static (int Pieces, int Bytes) Pieces(DeviceTensor tensor, int total) =>
        total == 0 ? (0, 0) : tensor.IsDense ? (1, total) : (tensor.Rows, total / tensor.Rows);

    /// <summary>Where a row begins in its buffer, in bytes.</summary>
    private static long Start(DeviceTensor tensor, int row) => (tensor.Offset + row * tensor.RowStride) * tensor.Type.Size();
}
