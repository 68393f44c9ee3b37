using System.Runtime.InteropServices;
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

    // What the CUDA runtime allocates, and PyTorch with it, lies in the device's primary context.
    [Fact]
    public unsafe void Memory_of_other_runtimes_is_taken_by_a_backend_in_the_primary_context()
    {
        const string Name = "cuda:0";
        Assert.SkipUnless(Backends.Discover().Any(info => info.Name == Name && info.IsUsable), "no CUDA device here");
        nint driver = NativeLibrary.Load("libcuda.so.1");
        T Call<T>(string function) => Marshal.GetDelegateForFunctionPointer<T>(NativeLibrary.GetExport(driver, function));
        using IlgpuBackend backend = (IlgpuBackend)Backends.Open(Name, new BackendOptions { PrimaryContext = true }), alone = IlgpuDevices.Open(Name);
        Assert.Equal(0, Call<Retain>("cuDevicePrimaryCtxRetain")(out nint primary, 0));
        Assert.Equal(primary, backend.Accelerator.NativePtr);
        Assert.NotEqual(primary, alone.Accelerator.NativePtr);
        Assert.Equal(0, Call<SetCurrent>("cuCtxSetCurrent")(primary));
        Assert.Equal(0, Call<Allocate>("cuMemAlloc_v2")(out nint theirs, 4 * sizeof(float)));
        Assert.Equal(0, Call<Fill>("cuMemsetD32_v2")(theirs, BitConverter.SingleToUInt32Bits(2), 4));
        using (DeviceTensor ours = backend.Wrap(theirs, ElementType.Float32, [2, 2]))
        {
            backend.Add(ours, ours, ours);
            Assert.Equal([4, 4, 4, 4], backend.Download<float>(ours));
        }

        string message = Assert.Throws<ArgumentException>(() => alone.Wrap(theirs, ElementType.Float32, [2, 2])).Message;
        Assert.Contains($"got memory of context 0x{primary:x}", message, StringComparison.Ordinal);
        Assert.True(IlgpuDevices.Works(alone));
        using DeviceTensor input = backend.Upload<float>([1, 2], 1, 2), weight = backend.Upload<float>([3, 4, 5, 6], 2, 2), output = backend.Allocate(ElementType.Float32, 1, 2);
        using (WeightMatrix packed = backend.Pack(weight, WeightForm.Float32)) backend.Linear(input, packed, null, output);
        Assert.Equal([11, 17], backend.Download<float>(output));
        Assert.Equal(0, Call<Free>("cuMemFree_v2")(theirs));
        Assert.Equal(0, Call<Release>("cuDevicePrimaryCtxRelease_v2")(0));
    }

    [Fact]
    public void A_backend_that_failed_leaves_the_primary_context_to_others()
    {
        const string Name = "cuda:0";
        Assert.SkipUnless(Backends.Discover().Any(info => info.Name == Name && info.IsUsable), "no CUDA device here");
        var options = new BackendOptions { PrimaryContext = true };
        using var other = (IlgpuBackend)Backends.Open(Name, options);
        nint primary = other.Accelerator.NativePtr;
        using DeviceTensor kept = other.Upload<float>([1, 2], 1, 2);
        using (var failing = (IlgpuBackend)Backends.Open(Name, options))
        {
            Assert.Equal(primary, failing.Accelerator.NativePtr);
            Assert.True(IlgpuDevices.Works(failing));
            using (failing.Enter("Add")) failing.Failed(new InvalidOperationException("lost"));
        }

        Assert.True(IlgpuDevices.Works(other));
        Assert.Equal([1, 2], other.Download<float>(kept));
        using (var next = (IlgpuBackend)Backends.Open(Name, options)) Assert.Equal(primary, next.Accelerator.NativePtr);
        // What that one gave back is nobody's who has not asked for it.
        using (IlgpuBackend alone = IlgpuDevices.Open(Name)) Assert.NotEqual(primary, alone.Accelerator.NativePtr);
        using var again = (IlgpuBackend)Backends.Open(Name, options);
        Assert.Equal(primary, again.Accelerator.NativePtr);
        Assert.True(IlgpuDevices.Works(again));
    }

    private delegate int Retain(out nint context, int device);

    private delegate int SetCurrent(nint context);

    private delegate int Allocate(out nint memory, nuint bytes);

    private delegate int Fill(nint memory, uint value, nuint count);

    private delegate int Free(nint memory);

    private delegate int Release(int device);

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
        Marshal.Copy(memory.Pointer, want, 0, 4);
        Assert.Equal(want, backend.Download<float>(ours));
        Assert.Equal(1 / (1 + MathF.Exp(-1)), want[0], 1e-6f);
    }
}
