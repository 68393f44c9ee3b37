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

    // The scratch memory of a step is some 200 MiB, that of its inputs as float32 64 MiB.
    private const int LargeStep = 32 << 10;
    private static readonly AttentionSpec[] Large = [AttentionSpec.Augmented(8, 1, 64, 16, convTaps: 3), AttentionSpec.FlashLocal(8, 1, 64, 24)];

    public static TheoryData<string> Names => IlgpuDevices.Names;

    public static TheoryData<string> Asynchronous => IlgpuDevices.Asynchronous;

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

    // Between giving up what it has to grow and taking it again somebody else may have had it.
    [Theory, MemberData(nameof(Names))]
    public void Scratch_memory_that_is_lost_is_said_to_be(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var array = new DeviceArray<byte>(backend);
        array.Reserve(200 * MiB);
        using (new Limit(backend, -100 * MiB))
        {
            Assert.StartsWith($"{name}: asked for ", Assert.Throws<OutOfDeviceMemoryException>(() => array.Reserve(300 * MiB)).Message, StringComparison.Ordinal);
            string why = $"{name}: scratch memory was given up to take more, and there was no longer enough to take it again, free ";
            Assert.StartsWith(why, Assert.Throws<OutOfDeviceMemoryException>(() => array.First(1)).Message, StringComparison.Ordinal);
            Assert.StartsWith(why, Assert.Throws<OutOfDeviceMemoryException>(() => array.Download(new byte[1])).Message, StringComparison.Ordinal);
            Assert.Equal(0, array.First(0).Length);
            Assert.True(IlgpuDevices.Works(backend));
        }

        array.Upload([1, 2, 3]);
        var numbers = new byte[3];
        array.Download(numbers);
        Assert.Equal([1, 2, 3], numbers);
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void Narrow_weights_are_packed_and_used_in_place_without_a_wide_copy(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        const int Inputs = 32 << 10, Outputs = 1 << 10;     // 64 MiB, as float32 128
        using DeviceTensor weight = backend.Allocate(ElementType.BFloat16, Outputs, Inputs), input = backend.Allocate(ElementType.Float32, 1, Inputs), output = backend.Allocate(ElementType.Float32, 1, Outputs);
        using WeightMatrix inPlace = backend.Pack(weight, WeightForm.InPlace);
        using (new Limit(backend, 50 * MiB)) backend.Linear(input, inPlace, null, output);
        using (new Limit(backend, (64 + 50) * MiB))
        {
            backend.Pack(weight, WeightForm.BFloat16).Dispose();
            backend.Pack(weight, WeightForm.Float16, transposed: true).Dispose();
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

    // Scratch for all groups as a GPU wants it, or little more than the step's tables.
    [Theory, MemberData(nameof(Names))]
    public void A_step_that_does_not_fit_does_not_begin_and_another_goes_on(string name)
    {
        DoesNotBegin(name, IlgpuDevices.Gpu, Large, 2, LargeStep, 100 * MiB, _ => "");
        DoesNotBegin(name, "", Large, 2, LargeStep, MiB / 4, _ => "");
    }

    // A thread keeps a copy of a run's block: nine times 4 MiB. Beside them such a step needs next to nothing.
    [Theory, MemberData(nameof(Names))]
    public void Nor_does_one_whose_runs_have_no_room_for_their_blocks(string name)
    {
        using (IlgpuBackend backend = IlgpuDevices.Open(name))
            if (!backend.UsesPatches) return;
        AttentionSpec[] longGroups = [AttentionSpec.LocalGlobal(2, 1, 32, 16 << 10), AttentionSpec.Augmented(2, 1, 32, 16 << 10, convTaps: 3)];
        DoesNotBegin(name, "", longGroups, 10, 9, 20 * MiB, rig => $"{9 * sizeof(float) * FlashWalk.SizeOf(((IlgpuFlashLayer)rig.State[0]).Memory)} bytes, ");
    }

    // All slots but the second.
    private static void DoesNotBegin(string name, string kind, AttentionSpec[] specs, int slots, int tokens, long free, Func<AttentionRig, string> asked)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name + kind);
        using var rig = new AttentionRig(backend, specs, slots: slots);
        var random = new Random(1);
        rig.Run(Feed.Advance(0, Tokens.Random(random, specs[0], 3)), Feed.Advance(1, Tokens.Random(random, specs[0], 2)));
        byte[] before = rig.Snapshot(0);
        var step = new Step();
        foreach (int slot in Enumerable.Range(0, slots).Where(slot => slot != 1)) step.Advance(slot, tokens);
        Feed under = Feed.Verify(1, TokenTree.FromParents([-1, 0, 0]), Tokens.Random(random, specs[0], 3));
        rig.Step.Clear();
        rig.Step.Add(under.Slot, under.Tree, under.Moves);
        rig.State.Begin(rig.Step);
        double[] first = rig.Attend(0, under);
        using (new Limit(backend, free))
        {
            Assert.StartsWith($"{name}: asked for {asked(rig)}", Assert.Throws<OutOfDeviceMemoryException>(() => rig.State.Begin(step)).Message, StringComparison.Ordinal);
            Assert.False(rig.State.IsBroken(0));
            Assert.Equal(3, rig.State.Length(0));
            Assert.Equal(before, rig.Snapshot(0));
            Assert.Throws<InvalidOperationException>(() => step.Positions.Length);     // it has not begun
            rig.Attend(1, under);
            rig.State.Complete(rig.Step);
            rig.CommitOnDevice([0, 2]);
            Assert.Equal(4, rig.State.Length(1));
        }

        rig.State.Rewind(1, 2);
        Close.SameBits(first, rig.Run(under)[0].AsSpan(0, first.Length), "the other step");
        rig.State.Begin(step);
        rig.State.Abandon(step);
        Assert.All(rig.Run(Feed.Advance(0, Tokens.Random(random, specs[0], 1)))[0], x => Assert.True(double.IsFinite(x)));
    }

    [Theory, MemberData(nameof(Names))]
    public void Narrow_inputs_that_do_not_fit_are_refused_before_anything_is_written(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Large);
        rig.Run(Feed.Advance(0, Tokens.Random(new Random(2), Large[0], 3)));
        byte[] before = rig.Snapshot(0);
        using DeviceTensor query = backend.Allocate(ElementType.BFloat16, LargeStep, Large[0].QueryHeads, Large[0].HeadDim), key = backend.Allocate(ElementType.BFloat16, LargeStep, 1, Large[0].HeadDim);
        using DeviceTensor output = backend.Allocate(ElementType.Float32, LargeStep, Large[0].QueryHeads, Large[0].ValueDim);
        Step step = rig.Step;
        step.Clear();
        step.Advance(0, LargeStep);
        rig.State.Begin(step);
        long launches = backend.Launches;
        using (new Limit(backend, 20 * MiB))
            Assert.Throws<OutOfDeviceMemoryException>(() => backend.Attend(rig.Layers[0], rig.State[0], step, new AttentionInputs(query, key, key), output));
        Assert.Equal(launches, backend.Launches);
        rig.State.Abandon(step);
        Assert.False(rig.State.IsBroken(0));
        Assert.Equal(before, rig.Snapshot(0));
    }

    // Of a capacity of a million positions a token's parts would fill more than a hundredth of the scratch memory; of the positions that there are they fill next to nothing.
    [Theory, MemberData(nameof(Asynchronous))]
    public void Softmax_scratch_follows_the_capacity_and_its_launches_the_length(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        AttentionSpec spec = AttentionSpec.Softmax(64, 1, 1);
        using var large = new AttentionRig(backend, [spec], slots: 1, capacity: 1 << 20);
        using var small = new AttentionRig(backend, [spec], slots: 1, capacity: 2048);
        var random = new Random(3);
        for (int i = 0; i < 6; i++)                         // past 1,024 positions, where a second part begins
        {
            Feed feed = Feed.Advance(0, Tokens.Random(random, spec, 200));
            (long launches, long allocations) = (backend.Launches, backend.Memory.Allocations);
            double[] got = large.Run(feed)[0];
            Assert.Equal(3, backend.Launches - launches);
            if (i > 0) Assert.Equal(4, backend.Memory.Allocations - allocations);       // the rig's own tensors
            Close.SameBits(got, small.Run(feed)[0], "the other capacity");
        }
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
