using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.Runtime;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Tables that a step uploads: copied in the order of the queue, on OpenCL without waiting for it.</summary>
public class IlgpuUploadTests
{
    private const int Queued = (1 << 20) / sizeof(int);     // the most that does not wait

    public static TheoryData<string> Asynchronous => IlgpuDevices.Asynchronous;

    [Theory, MemberData(nameof(Asynchronous))]
    public void What_reads_an_array_has_what_was_uploaded_before_it(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor number = backend.Upload<int>([1], 1), copies = backend.Allocate(ElementType.Int32, 6, 2 * Queued);
        using var array = new DeviceArray<int>(backend);
        array.Reserve(2 * Queued);
        int[][] uploads = [Numbers(1, 1000), Numbers(2, 1000), Numbers(3, 1700), Numbers(4, Queued), Numbers(5, Queued + 1), Numbers(6, 10)];
        SlowKernel.Launch(backend, number);                 // the second upload is asked for long before the first one's copy has its turn
        for (int i = 0; i < uploads.Length; i++) Copy(backend, array.Upload(uploads[i]), copies.Slice(0, i, 1));
        for (int i = 0; i < uploads.Length; i++) Assert.Equal(uploads[i], backend.Download<int>(copies.Slice(0, i, 1))[..uploads[i].Length]);
    }

    [Fact]
    public void On_OpenCL_the_host_waits_for_an_earlier_upload_alone()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        using DeviceTensor number = backend.Upload<int>([1], 1);
        using var array = new DeviceArray<int>(backend);
        array.Reserve(Queued + 1);
        int[] most = Numbers(1, Queued);
        SlowKernel.Launch(backend, number);
        Assert.Equal(0, Waits(most));
        Assert.Equal(1, Waits(most));
        backend.Synchronize();
        Assert.Equal(0, Waits(most));
        Assert.Equal(1, Waits(Numbers(2, Queued + 1)));
        Assert.Equal(0, Waits([]));

        long Waits(int[] numbers)
        {
            long before = backend.Waits;
            array.Upload(numbers);
            return backend.Waits - before;
        }
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void An_array_that_is_dropped_right_after_its_upload_has_been_copied(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor number = backend.Upload<int>([1], 1), copy = backend.Allocate(ElementType.Int32, 1, Queued);
        SlowKernel.Launch(backend, number);
        Drop(backend, copy);
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        Assert.Equal(1, backend.Memory.Waiting);
        // What takes the place of the host's numbers, if they were given back too early.
        int[][] others = [.. Enumerable.Range(0, 8).Select(_ => GC.AllocateArray<int>(Queued, pinned: true))];
        Assert.Equal(Numbers(1, Queued), backend.Download<int>(copy));
        Assert.True(IlgpuDevices.Works(backend));
        Assert.Equal(0, backend.Memory.Waiting);
        GC.KeepAlive(others);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Drop(IlgpuBackend backend, DeviceTensor copy)
    {
        var array = new DeviceArray<int>(backend);
        array.Reserve(Queued);
        SlowKernel.Launch(backend, copy);                   // the array's memory has been waited for
        Copy(backend, array.Upload(Numbers(1, Queued)), copy);
    }

    private static void Copy(IlgpuBackend backend, ArrayView<int> from, DeviceTensor to) => from.CopyTo(backend.Stream, IlgpuBackend.Elements<int>(to).SubView(0, from.Length));

    private static int[] Numbers(int seed, int count) => [.. Enumerable.Range(0, count).Select(i => seed * 1_000_003 + i)];
}
