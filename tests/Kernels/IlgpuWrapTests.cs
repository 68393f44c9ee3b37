using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Foreign memory on ILGPU's devices.</summary>
public class IlgpuWrapTests
{
    public static TheoryData<string> Names => IlgpuDevices.Names;

    public static TheoryData<string> WithContexts => IlgpuDevices.Asynchronous;

    [Theory, MemberData(nameof(Names))]
    public void Memory_of_the_same_context_is_used_in_place(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor theirs = backend.Upload<float>([1, 2, 3, 4, 5, 6], 2, 3), three = backend.Upload<float>([1, 1, 1, 1, 1, 1], 3, 2);
        using (DeviceTensor ours = backend.Wrap(((IlgpuBuffer)theirs.Buffer).Handle, ElementType.Float32, [3, 2]))
        {
            Assert.Equal([1, 2, 3, 4, 5, 6], backend.Download<float>(ours));
            backend.Add(ours, three, ours);
        }

        Assert.Equal([2, 3, 4, 5, 6, 7], backend.Download<float>(theirs));
        using DeviceTensor narrow = backend.Wrap(((IlgpuBuffer)theirs.Buffer).Handle, ElementType.Float32, [2, 2], [3, 1]);
        backend.Write<float>(narrow, [10, 11, 12, 13]);
        Assert.Equal([10, 11, 4, 12, 13, 7], backend.Download<float>(theirs));
    }

    [Theory, MemberData(nameof(WithContexts))]
    public void Memory_of_another_context_is_refused_by_name(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name), other = IlgpuDevices.Open(name);
        using DeviceTensor theirs = other.Upload<float>([1, 2, 3, 4], 2, 2);
        nint handle = ((IlgpuBuffer)theirs.Buffer).Handle;
        string message = Assert.Throws<ArgumentException>(() => backend.Wrap(handle, ElementType.Float32, [2, 2])).Message;
        Assert.StartsWith($"pointer: expected memory of {name}'s context 0x{backend.Accelerator.NativePtr:x}, got memory of context 0x{other.Accelerator.NativePtr:x}", message, StringComparison.Ordinal);
        Assert.True(IlgpuDevices.Works(backend));
    }

    [Fact]
    public void A_buffer_that_is_too_small_is_refused()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        using DeviceTensor theirs = backend.Upload<float>([1, 2, 3, 4], 2, 2);
        string message = Assert.Throws<ArgumentException>(() => backend.Wrap(((IlgpuBuffer)theirs.Buffer).Handle, ElementType.Float32, [2, 2], [100, 1])).Message;
        Assert.StartsWith("pointer: expected a cl_mem of at least 408 bytes, got one of 16", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Host_memory_is_used_in_place_by_the_debugging_device()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("ilgpu-cpu");
        using var memory = new GuardedMemory(4 * sizeof(float));
        using DeviceTensor ours = backend.Wrap(memory.Pointer, ElementType.Float32, [2, 2]);
        backend.Write<float>(ours, [1, 2, 3, 4]);
        backend.Silu(ours, ours);
        float[] want = new float[4];
        System.Runtime.InteropServices.Marshal.Copy(memory.Pointer, want, 0, 4);
        Assert.Equal(want, backend.Download<float>(ours));
        Assert.Equal(1 / (1 + MathF.Exp(-1)), want[0], 1e-6f);
    }
}
