using System.Runtime.CompilerServices;
using ILGPU.Runtime.OpenCL;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Device memory that runs out, and what becomes of memory that nobody gives back.</summary>
public class IlgpuMemoryTests
{
    private const int MiB = 1 << 20;

    public static TheoryData<string> Names => IlgpuDevices.Names;

    [Theory, MemberData(nameof(Names))]
    public void What_a_device_cannot_have_is_refused_with_the_numbers(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        long held = backend.Memory.Allocations;
        string message = Assert.Throws<OutOfDeviceMemoryException>(() => backend.Allocate(ElementType.Float32, MiB, MiB)).Message;
        Assert.StartsWith($"{name}: asked for {(long)MiB * MiB * 4} bytes, ", message, StringComparison.Ordinal);
        Assert.EndsWith($" of {backend.Memory.Total}", message, StringComparison.Ordinal);
        Assert.Equal(held, backend.Memory.Allocations);
        Assert.True(IlgpuDevices.Works(backend));
    }

    [Theory, MemberData(nameof(Names))]
    public void Nor_more_at_once_than_the_device_gives(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        long largest = backend.Memory.Largest;
        if (largest == long.MaxValue) return;               // no such limit
        Assert.InRange(largest, MiB, backend.Memory.Total);
        int rows = checked((int)(largest / MiB)) + 1;
        string message = Assert.Throws<OutOfDeviceMemoryException>(() => backend.Allocate(ElementType.UInt8, rows, MiB)).Message;
        Assert.StartsWith($"{name}: asked for {(long)rows * MiB} bytes, the device gives at most {largest} at once, free ", message, StringComparison.Ordinal);
        Assert.True(IlgpuDevices.Works(backend));
    }

    [Theory, MemberData(nameof(Names))]
    public void A_full_device_is_usable_again_when_memory_is_given_back(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var full = new Limit(backend, 300 * MiB);
        DeviceTensor first = backend.Allocate(ElementType.UInt8, 200, MiB);
        string message = Assert.Throws<OutOfDeviceMemoryException>(() => backend.Allocate(ElementType.UInt8, 200, MiB)).Message;
        Assert.StartsWith($"{name}: asked for {200L * MiB} bytes, free ", message, StringComparison.Ordinal);
        Assert.True(IlgpuDevices.Works(backend));
        first.Dispose();
        backend.Allocate(ElementType.UInt8, 200, MiB).Dispose();
    }

    [Theory, MemberData(nameof(Names))]
    public void Tensors_that_were_dropped_make_room(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var full = new Limit(backend, 300 * MiB);
        Drop(backend);
        backend.Allocate(ElementType.UInt8, 200, MiB).Dispose();
    }

    [Theory, MemberData(nameof(Names))]
    public void Scratch_memory_that_does_not_fit_fails_the_op_and_nothing_else(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor narrow = backend.Allocate(ElementType.BFloat16, 64, MiB), output = backend.Allocate(ElementType.Float32, 64, MiB);
        using (new Limit(backend, 100 * MiB))
        {
            Assert.Throws<OutOfDeviceMemoryException>(() => backend.Silu(narrow, output));
            Assert.True(IlgpuDevices.Works(backend));
            using var array = new DeviceArray<float>(backend);
            array.Upload([1, 2, 3]);
            Assert.Throws<OutOfDeviceMemoryException>(() => array.Reserve(100 * MiB));
            var numbers = new float[3];
            array.Upload([4, 5, 6]);
            array.Download(numbers);
            Assert.Equal([4, 5, 6], numbers);
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void A_device_that_finds_out_late_leaves_the_backend_usable(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        Exception late = backend.Failed(new CLException(CLError.CL_MEM_OBJECT_ALLOCATION_FAILURE));
        Assert.StartsWith($"{name}: no memory for the work queued, free ", Assert.IsType<OutOfDeviceMemoryException>(late).Message, StringComparison.Ordinal);
        Assert.True(IlgpuDevices.Works(backend));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Drop(IlgpuBackend backend) => backend.Allocate(ElementType.UInt8, 200, MiB);

    /// <summary>Leaves a device so many bytes. Tests beside this one may have the same device: what is asked for is far from the limit.</summary>
    private sealed class Limit : IDisposable
    {
        private readonly DeviceMemory _memory;
        private readonly long _total;

        public Limit(IlgpuBackend backend, long free)
        {
            (_memory, _total) = (backend.Memory, backend.Memory.Total);
            _memory.Total = _memory.Held + free;
        }

        public void Dispose() => _memory.Total = _total;
    }
}
