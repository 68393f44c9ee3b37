using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using Treeline.Kernels.ILGPU;

namespace Treeline.GpuCheck;

/// <summary>Times what is queued on an ILGPU stream: between two events of the device on CUDA, elsewhere by the host's clock.</summary>
internal sealed class IlgpuMeter : DeviceMeter
{
    private readonly IlgpuBackend _backend;
    private readonly CudaStream? _stream;                   // null where there are no events
    private readonly nint _first, _last;

    public IlgpuMeter(IlgpuBackend backend) : base(backend)
    {
        (_backend, _stream) = (backend, backend.Stream as CudaStream);
        if (_stream is null) return;
        backend.Accelerator.Bind();
        Demand(CudaAPI.CurrentAPI.CreateEvent(out _first, CudaEventFlags.CU_EVENT_DEFAULT));
        Demand(CudaAPI.CurrentAPI.CreateEvent(out _last, CudaEventFlags.CU_EVENT_DEFAULT));
    }

    public override string Clock => _stream is null ? base.Clock : "device events";

    public override double CopiedBytesPerSecond()
    {
        using MemoryBuffer1D<byte, Stride1D.Dense> from = _backend.Accelerator.Allocate1D<byte>(CopyBytes), to = _backend.Accelerator.Allocate1D<byte>(CopyBytes);
        return 2 * CopyBytes / Seconds(() => from.View.CopyTo(_backend.Stream, to.View));
    }

    public override void Dispose()
    {
        base.Dispose();
        if (_stream is null) return;
        _backend.Accelerator.Bind();
        Demand(CudaAPI.CurrentAPI.DestroyEvent(_first));
        Demand(CudaAPI.CurrentAPI.DestroyEvent(_last));
    }

    private protected override double Turn(Action call, int calls)
    {
        if (_stream is null) return base.Turn(call, calls);
        _backend.Accelerator.Bind();
        Demand(CudaAPI.CurrentAPI.RecordEvent(_first, _stream.StreamPtr));
        for (int i = 0; i < calls; i++) call();
        Demand(CudaAPI.CurrentAPI.RecordEvent(_last, _stream.StreamPtr));
        Demand(CudaAPI.CurrentAPI.SynchronizeEvent(_last));
        Demand(CudaAPI.CurrentAPI.ElapsedTime(out float milliseconds, _first, _last));
        return milliseconds / 1000.0;
    }

    private static void Demand(CudaError error)
    {
        if (error != CudaError.CUDA_SUCCESS) throw new InvalidOperationException($"an event of the device: {error}");
    }
}
