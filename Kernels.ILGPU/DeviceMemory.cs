using System.Collections.Concurrent;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.CPU;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>An open device's memory: the one place where it is taken and given back.</summary>
/// <remarks>
/// What this process holds is counted, per device and over all backends on it: OpenCL takes an allocation beyond the device's memory and fails at its first use, or swaps.
/// Memory that the garbage collector finds dropped is given back here too, at the next allocation and after the work queued so far: a kernel may still be reading it.
/// </remarks>
internal sealed class DeviceMemory(string name, Accelerator accelerator)
{
    private static readonly ConcurrentDictionary<string, Count> Counts = [];

    private readonly Count _count = Counts.GetOrAdd(name, _ => new Count());
    private readonly ConcurrentQueue<(MemoryBuffer Memory, object Held)> _dropped = [];

    /// <summary>Bytes that may be held at once.</summary>
    public long Total { get; set; } = accelerator is CPUAccelerator ? GC.GetGCMemoryInfo().TotalAvailableMemoryBytes : accelerator.MemorySize;

    /// <summary>The largest single allocation.</summary>
    public long Largest { get; } = accelerator is CLAccelerator opencl
        ? CLAPI.CurrentAPI.GetDeviceInfo<long>(opencl.DeviceId, CLDeviceInfoType.CL_DEVICE_MAX_MEM_ALLOC_SIZE)
        : long.MaxValue;

    /// <summary>Bytes that this process holds on the device.</summary>
    public long Held => Interlocked.Read(ref _count.Bytes);

    /// <summary>Number of allocations so far.</summary>
    public long Allocations { get; private set; }

    /// <summary>Number of pieces that were dropped and have not been given back yet.</summary>
    public int Waiting => _dropped.Count;

    /// <summary>Bytes that are free: as the driver says on CUDA, elsewhere as counted.</summary>
    public long Free => accelerator is CudaAccelerator && CudaAPI.CurrentAPI.GetMemoryInfo(out long free, out _) == CudaError.CUDA_SUCCESS ? free : Math.Max(0, Total - Held);

    /// <summary>Takes zeroed memory; it has been touched when this returns, so that it is there for sure.</summary>
    /// <exception cref="OutOfDeviceMemoryException">There is not so much.</exception>
    public MemoryBuffer Take(IlgpuBackend backend, long bytes)
    {
        GiveBackDropped(backend);
        if (bytes > Largest) throw new OutOfDeviceMemoryException($"{name}: asked for {bytes} bytes, the device gives at most {Largest} at once, free {Free} of {Total}");
        if (TryTake(backend, bytes, out MemoryBuffer? memory, out Exception? cause)) return memory!;
        if (bytes <= Total)
        {
            // The collector does not see device memory: it has had no reason to look for tensors that were dropped.
            GC.Collect();
            GC.WaitForPendingFinalizers();
            GiveBackDropped(backend);
            if (TryTake(backend, bytes, out memory, out cause)) return memory!;
        }

        throw new OutOfDeviceMemoryException($"{name}: asked for {bytes} bytes, free {Free} of {Total}", cause!);
    }

    /// <summary>Gives memory back; the work on it has been done.</summary>
    public void GiveBack(MemoryBuffer memory)
    {
        Interlocked.Add(ref _count.Bytes, -memory.LengthInBytes);
        try
        {
            memory.Dispose();
        }
        catch (AcceleratorException)
        {
            // A device that is lost has lost its memory too.
        }
    }

    /// <summary>Takes note of memory that nobody refers to any more; from the finalizer's thread.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="held">What queued work may still be reading on the host.</param>
    public void Drop(MemoryBuffer memory, object held) => _dropped.Enqueue((memory, held));

    /// <summary>Gives back what was dropped, after the work queued so far.</summary>
    public void GiveBackDropped(IlgpuBackend backend)
    {
        if (_dropped.IsEmpty) return;
        backend.WaitQuietly();
        while (_dropped.TryDequeue(out (MemoryBuffer Memory, object Held) dropped)) GiveBack(dropped.Memory);
    }

    private bool TryTake(IlgpuBackend backend, long bytes, out MemoryBuffer? memory, out Exception? cause)
    {
        (memory, cause) = (null, null);
        if (Interlocked.Add(ref _count.Bytes, bytes) <= Total)
        {
            try
            {
                memory = accelerator.AllocateRaw(bytes, sizeof(byte));
#pragma warning disable CA1816                              // not our own finalizer but ILGPU's, which frees at once: the buffer that has the memory tells when it is dropped
                GC.SuppressFinalize(memory);
#pragma warning restore CA1816
                memory.MemSet(backend.Stream, 0, 0, bytes);
                backend.Waits++;
                backend.Stream.Synchronize();
                Allocations++;
                return true;
            }
            catch (Exception e) when (IsOutOfMemory(e))
            {
                cause = backend.Failed(e);                  // it may be earlier work that had no memory
                memory?.Dispose();
                memory = null;
            }
            catch (AcceleratorException e)
            {
                Interlocked.Add(ref _count.Bytes, -bytes);
                throw backend.Failed(e);
            }
        }

        Interlocked.Add(ref _count.Bytes, -bytes);
        return false;
    }

    /// <summary>True where a device says by an error that its memory is full, which leaves it usable.</summary>
    public static bool IsOutOfMemory(Exception e) => e switch
    {
        CLException opencl => opencl.Error is CLError.CL_MEM_OBJECT_ALLOCATION_FAILURE or CLError.CL_OUT_OF_HOST_MEMORY or CLError.CL_INVALID_BUFFER_SIZE,
        CudaException cuda => cuda.Error == nameof(CudaError.CUDA_ERROR_OUT_OF_MEMORY),
        CuBlasException cuBlas => cuBlas.Error == CuBlasStatus.CUBLAS_STATUS_ALLOC_FAILED,
        OutOfMemoryException => true,
        _ => false,
    };

    private sealed class Count
    {
        public long Bytes;
    }
}
