using ILGPU.Runtime.OpenCL;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Shapes beyond what is launched at once, places beyond what 32 bits count, and nothing at all.</summary>
public class IlgpuLimitTests
{
    // One line an op: rows are [n, columns], vectors [columns], numbers [n], one [1, columns].
    private static readonly Dictionary<string, Action<KernelBackend, Shapes>> Ops = new()
    {
        ["Add"] = (backend, s) => backend.Add(s.X, s.X, s.Output),
        ["Silu"] = (backend, s) => backend.Silu(s.X, s.Output),
        ["SiluGate"] = (backend, s) => backend.SiluGate(s.X, s.X, s.Output),
        ["Gelu"] = (backend, s) => backend.Gelu(s.X, GeluForm.Tanh, s.Output),
        ["Softmax"] = (backend, s) => backend.Softmax(s.X, s.Output),
        ["RmsNorm"] = (backend, s) => backend.RmsNorm(s.X, s.Vector, 1e-5f, s.Output),
        ["LayerNorm"] = (backend, s) => backend.LayerNorm(s.X, s.Vector, s.Vector, 1e-5f, s.Output),
        ["ArgMax"] = (backend, s) => backend.ArgMax(s.X, s.Integers),
        ["TopK"] = (backend, s) => backend.TopK(s.X, s.OneColumn, s.OneIndex),
    };

    public static TheoryData<string> Names => IlgpuDevices.Names;

    public static TheoryData<string, string> Cases => new(from name in IlgpuDevices.Names from op in Ops.Keys select (name.Data, op));

    [Theory, MemberData(nameof(Cases))]
    public void More_than_is_launched_at_once_is_refused_before_any_launch(string name, string op)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        foreach ((int rows, int columns) in ((int, int)[])[(int.MaxValue, 2), (70_000_000, 33)])
        {
            using var shapes = new Shapes(backend, rows, columns);
            long launches = backend.Launches;
            Assert.Contains("at most ", Assert.Throws<NotSupportedException>(() => Ops[op](backend, shapes)).Message, StringComparison.Ordinal);
            Assert.Equal(launches, backend.Launches);
        }
    }

    // As on a GPU products are cut into tiles of 32 rows, in place into single ones, by up to 256 outputs. Input, output and the weight in place are one row that is all of them.
    [Theory, MemberData(nameof(Names))]
    public void A_product_of_more_than_is_launched_at_once_is_refused_before_any_launch(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name + IlgpuDevices.Gpu);
        const int Outputs = 256;
        int lanes = Math.Min(Outputs, backend.Accelerator.MaxNumThreadsPerGroup), most = int.MaxValue - ushort.MaxValue;
        using DeviceTensor inputRow = backend.Allocate(ElementType.Float32, 1), narrowRow = backend.Allocate(ElementType.BFloat16, 1), outputRow = backend.Allocate(ElementType.Float32, Outputs);
        using DeviceTensor numbers = backend.Allocate(ElementType.Float32, Outputs, 1);
        foreach (WeightForm form in (WeightForm[])[WeightForm.Float32, WeightForm.BFloat16, WeightForm.Float16, WeightForm.Int8, WeightForm.Int4, WeightForm.InPlace])
        {
            using WeightMatrix weight = backend.Pack(numbers, form);
            int tile = form == WeightForm.InPlace ? 1 : 32;
            // The first that is too many; as many as the lanes multiply to 2^32; the last there is.
            foreach (long rows in (long[])[(most / lanes * (long)tile) + 1, (1L << 32) / lanes * tile, int.MaxValue])
            {
                if (rows > int.MaxValue || (rows + tile - 1) / tile <= most / lanes) continue;
                Refused(inputRow, ElementType.Float32, weight, (int)rows, $"{name}: a launch of {(rows + tile - 1) / tile} x {Outputs / lanes} x 1 groups of {lanes}: at most {most / lanes} x ");
                Refused(narrowRow, ElementType.BFloat16, weight, (int)rows, "at most ");
            }
        }

        void Refused(DeviceTensor row, ElementType type, WeightMatrix weight, int rows, string why)
        {
            using DeviceTensor input = backend.Wrap(((IlgpuBuffer)row.Buffer).Handle, type, [rows, 1], [0, 1]);
            using DeviceTensor output = backend.Wrap(((IlgpuBuffer)outputRow.Buffer).Handle, ElementType.Float32, [rows, Outputs], [0, 1]);
            (long launches, long allocations) = (backend.Launches, backend.Memory.Allocations);
            Assert.Contains(why, Assert.Throws<NotSupportedException>(() => backend.Linear(input, weight, null, output)).Message, StringComparison.Ordinal);
            Assert.Equal((launches, allocations), (backend.Launches, backend.Memory.Allocations));
        }
    }

    // CUDA takes 65,535 groups on an axis that is not the first; the outputs lie there, those of a panel in a group where products are computed in patches.
    [Theory, MemberData(nameof(Names))]
    public void Nor_are_more_outputs_taken_than_the_second_axis_has_groups_for(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        int lanes = Math.Min(256, backend.Accelerator.MaxNumThreadsPerGroup), most = backend.Accelerator.MaxGridSize.Y;
        if (((long)most * lanes) + 1 > int.MaxValue) Assert.Skip($"{name} takes {most} groups on the second axis");
        int outputs = (most * lanes) + 1;
        using DeviceTensor one = backend.Upload<float>([2], 1), input = backend.Upload<float>([3], 1, 1), output = backend.Allocate(ElementType.Float32, 1, outputs);
        using DeviceTensor numbers = backend.Wrap(((IlgpuBuffer)one.Buffer).Handle, ElementType.Float32, [outputs, 1], [0, 1]);
        using WeightMatrix weight = backend.Pack(numbers, WeightForm.InPlace);
        long launches = backend.Launches;
        string why = $"{name}: a launch of 1 x {most + 1} x 1 groups of {lanes}: at most {(int.MaxValue - ushort.MaxValue) / lanes} x {most} x ";
        Assert.StartsWith(why, Assert.Throws<NotSupportedException>(() => backend.Linear(input, weight, null, output)).Message, StringComparison.Ordinal);
        Assert.Equal(launches, backend.Launches);
    }

    [Theory, MemberData(nameof(Cases))]
    public void No_rows_launch_nothing(string name, string op)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var shapes = new Shapes(backend, 0, 5);
        long launches = backend.Launches;
        Ops[op](backend, shapes);
        Assert.Equal(launches, backend.Launches);
    }

    [Theory, MemberData(nameof(Names))]
    public void No_tokens_launch_nothing(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        var backend = (IlgpuBackend)rig.Backend;
        AttentionSpec[] specs = [AttentionSpec.Augmented(2, 1, 4, 16, convTaps: 3), AttentionSpec.Softmax(2, 1, 4)];
        using var attention = new AttentionRig(backend, specs);
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, 4, 3)), ids = rig.Upload(), rows = rig.Output(0, 0, 3);
        DeviceTensor cosines = rig.Output(0, 0, 2), sines = rig.Output(0, 0, 2), path = rig.IntegerOutput(0, 0);
        WeightMatrix weight = rig.Own(backend.Pack(table, WeightForm.Float32));
        var nothing = new Step();
        long launches = backend.Launches;
        backend.Linear(rows, weight, null, rig.Output(0, 0, 4));
        backend.Embedding(table, ids, rows);
        backend.RotaryAngles(new RotarySpec { RotaryDim = 4 }, ids, cosines, sines);
        backend.Rotary(rig.Output(0, 0, 2, 4), cosines, sines, RotaryPairs.Halves);
        backend.LogProbability(rows, ids, rig.Output(0, 0));
        backend.Sample(rows, [], ids);
        backend.Accept(nothing, ids, ids, path, ids);
        backend.AcceptTypical(nothing, ids, rows, 0.5f, 0.1f, 0.3f, path);
        Assert.All(attention.Run(Feed.Advance(0, Tokens.Random(new Random(1), specs[0], 0))), Assert.Empty);
        Assert.Equal(launches, backend.Launches);
    }

    [Theory, MemberData(nameof(Names))]
    public void Wider_heads_than_are_supported_are_refused_before_any_launch(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Softmax(1, 1, 257), AttentionSpec.Augmented(1, 1, 257, 16), AttentionSpec.Softmax(1, 1, 8, 4097)])
        {
            long launches = backend.Launches, allocations = backend.Memory.Allocations;
            Assert.False(backend.Supports(spec, out string why));
            Assert.Contains(spec.HeadDim > 256 ? "HeadDim: expected 1 to 256, got 257" : "ValueDim: expected 1 to 4096, got 4097", why, StringComparison.Ordinal);
            Assert.Equal($"{name}: {why}", Assert.Throws<NotSupportedException>(() => backend.Bind(spec)).Message);
            Assert.Throws<NotSupportedException>(() => backend.CreateState([spec], 1, 64));
            Assert.Equal((launches, allocations), (backend.Launches, backend.Memory.Allocations));
        }
    }

    // The memory is the host's and hardly touched: the rows lie 2 GB apart.
    [Fact]
    public void Rows_may_lie_beyond_what_32_bits_count()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        const long Stride = 500_000_000;
        long bytes = (2 * Stride + 16) * sizeof(float);
        if (bytes > backend.Memory.Largest) Assert.Skip($"opencl:0 takes at most {backend.Memory.Largest} bytes at once, the test {bytes}");
        using var reserved = new GuardedMemory(bytes);
        CLException.ThrowIfFailed(CLAPI.CurrentAPI.CreateBuffer(backend.Accelerator.NativePtr, CLBufferFlags.CL_MEM_READ_WRITE | CLBufferFlags.CL_MEM_USE_HOST_PTR, (nint)bytes, reserved.Pointer, out nint memory));
        try
        {
            using DeviceTensor far = backend.Wrap(memory, ElementType.Float32, [3, 5], [Stride, 1]), near = backend.Upload<float>([.. Enumerable.Range(1, 15).Select(i => (float)i)], 3, 5);
            backend.Write<float>(far, [.. Enumerable.Range(1, 15).Select(i => 100f * i)]);
            backend.Add(far, near, far);
            backend.Add(far, near, near);
            Assert.Equal(Enumerable.Range(1, 15).Select(i => 101f * i), backend.Download<float>(far));
            Assert.Equal(Enumerable.Range(1, 15).Select(i => 102f * i), backend.Download<float>(near));
            using DeviceTensor integers = backend.Allocate(ElementType.Int32, 3);
            backend.ArgMax(far, integers);
            Assert.Equal([4, 4, 4], backend.Download<int>(integers));
            DeviceTensor last = far.Slice(0, 2, 1);
            backend.Add(last, near.Slice(0, 0, 1), last);
            Assert.Equal([1213f, 1416, 1619, 1822, 2025], backend.Download<float>(far)[10..]);
        }
        finally
        {
            backend.Synchronize();
            CLException.ThrowIfFailed(CLAPI.CurrentAPI.ReleaseBuffer(memory));
        }
    }

    [Fact]
    public void A_view_that_begins_beyond_is_refused_on_OpenCL()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        using DeviceTensor near = backend.Allocate(ElementType.Float32, 1, 5);
        var far = new DeviceTensor(near.Buffer, ElementType.Float32, [1, 5], [5, 1], offset: 1L << 31, owner: false);
        long launches = backend.Launches;
        Assert.Contains("a view that begins at element 2147483648 of its memory", Assert.Throws<NotSupportedException>(() => backend.Add(far, near, near)).Message, StringComparison.Ordinal);
        Assert.Equal(launches, backend.Launches);
    }

    // Rows 65,536 long, packed 16 at a time: those from the 32,784th on begin behind 2^31 elements. The tensor has no such memory; nothing looks.
    [Fact]
    public void So_is_a_weight_to_pack_whose_last_rows_begin_there()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        using DeviceTensor near = backend.Allocate(ElementType.BFloat16, 1, 5);
        (long launches, long allocations) = (backend.Launches, backend.Memory.Allocations);
        foreach ((int rows, long begins) in ((int, long)[])[((1 << 15) + 1, 1L << 31), (1 << 16, 65_520L << 16)])
        {
            var far = new DeviceTensor(near.Buffer, ElementType.BFloat16, [rows, 1 << 16], [1 << 16, 1], offset: 0, owner: false);
            foreach (bool transposed in (bool[])[false, true])
                foreach (WeightForm form in (WeightForm[])[WeightForm.Float32, WeightForm.BFloat16, WeightForm.Float16])
                    Assert.Equal($"opencl:0: a view that begins at element {begins} of its memory: at most {int.MaxValue} on OpenCL; allocate it by itself", Assert.Throws<NotSupportedException>(() => backend.Pack(far, form, transposed)).Message);
        }

        Assert.Equal((launches, allocations), (backend.Launches, backend.Memory.Allocations));
    }

    // The sequences that are fed several tokens lie on the second axis.
    [Fact]
    public void A_step_of_more_sequences_than_that_axis_takes_does_not_begin()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0" + IlgpuDevices.Gpu);
        int most = backend.Accelerator.MaxGridSize.Y;
        if (most > ushort.MaxValue) Assert.Skip($"opencl:0 takes {most} groups on the second axis");
        using AttentionState state = backend.CreateState([AttentionSpec.FlashLocal(1, 1, 1, 16)], most + 1, 1);
        var step = new Step();
        for (int slot = 0; slot <= most; slot++) step.Advance(slot, 9);
        long launches = backend.Launches;
        Assert.StartsWith($"opencl:0: a launch of 16 x {most + 1} x 1 groups of 32: at most ", Assert.Throws<NotSupportedException>(() => state.Begin(step)).Message, StringComparison.Ordinal);
        Assert.Equal(launches, backend.Launches);
        Assert.False(state.IsBroken(most));
        step.Clear();
        step.Advance(most, 2);
        state.Begin(step);
    }

    // Refused before any memory is asked for: no machine here has so much.
    [Fact]
    public void So_is_a_state_whose_slots_begin_beyond()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        AttentionSpec softmax = AttentionSpec.Softmax(8, 8, 128), narrow = AttentionSpec.Softmax(1, 1, 1, 128), sums = AttentionSpec.FlashGlobal(1, 1, 256, 16, 4096);
        AttentionSpec keys = AttentionSpec.FlashLocal(1, 1, 256, 1 << 20, 1), values = AttentionSpec.FlashLocal(1, 1, 1, 1 << 20, 256), window = AttentionSpec.Augmented(1, 1, 1, 16, convTaps: (1 << 20) + 1, valueDim: 4096);
        Refused([softmax], 66, 1 << 15, "layer 0: of 66 slots with capacity 32768 the last one's keys would begin at element 2181038080");
        Refused([narrow], 1 << 10, 1 << 15, "layer 0: of 1024 slots with capacity 32768 the last one's values would begin at element 4290772992");
        Refused([sums], 2050, 1, "layer 0: of 2050 slots the last one's sums would begin at element 2148532224");
        Refused([keys], 10, 1, "layer 0: of 10 slots with room for trees of 8 nodes the last one's keys would begin at element 2415937536");
        Refused([values], 10, 1, "layer 0: of 10 slots with room for trees of 8 nodes the last one's values would begin at element 2415937536");
        Refused([window], 1, 1, "layer 0: of 1 slots with room for trees of 8 nodes the last one's values would begin at element 4294967296");

        void Refused(AttentionSpec[] specs, int slots, int capacity, string why)
        {
            long allocations = backend.Memory.Allocations;
            Assert.Equal($"opencl:0: {why} of their memory: at most {int.MaxValue} on OpenCL; create several states of fewer slots",
                Assert.Throws<NotSupportedException>(() => backend.CreateState(specs, slots, capacity)).Message);
            Assert.Equal(allocations, backend.Memory.Allocations);
        }
    }

    [Fact]
    public void So_is_a_tree_for_which_so_many_slots_have_no_room()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        const int Slots = 1 << 21;
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.FlashLocal(1, 1, 1, 16), AttentionSpec.Softmax(1, 1, 1, 2)])
        {
            using AttentionState state = backend.CreateState([spec], Slots, 1);
            var step = new Step();
            step.Verify(3, TokenTree.FromParents([.. Enumerable.Repeat(-1, 1024)]));
            string what = spec.Attention == "flash" ? "keys would begin at element 2181037040" : "pending values would begin at element 4294965248";
            Assert.Equal($"opencl:0: layer 0: of {Slots} slots with room for trees of 1024 nodes the last one's {what} of their memory: at most {int.MaxValue} on OpenCL; create several states of fewer slots",
                Assert.Throws<NotSupportedException>(() => state.Begin(step)).Message);
            Assert.False(state.IsBroken(3));
            step.Clear();
            step.Verify(3, TokenTree.Path(1));
            state.Begin(step);
        }
    }

    /// <summary>Arguments of many rows that are all the same one.</summary>
    private sealed class Shapes : IDisposable
    {
        private readonly List<DeviceTensor> _owned = [];

        public Shapes(IlgpuBackend backend, int rows, int columns)
        {
            X = Rows(ElementType.Float32, rows, columns);
            Output = Rows(ElementType.Float32, rows, columns);
            OneColumn = Rows(ElementType.Float32, rows, 1);
            OneIndex = Rows(ElementType.Int32, rows, 1);
            Integers = Rows(ElementType.Int32, rows);
            Vector = Own(backend.Allocate(ElementType.Float32, columns));

            DeviceTensor Rows(ElementType type, params int[] shape)
            {
                DeviceTensor row = Own(backend.Allocate(type, [1, .. shape[1..]]));
                return Own(backend.Wrap(((IlgpuBuffer)row.Buffer).Handle, type, shape, shape.Length == 1 ? [0] : [0, 1]));
            }
        }

        public DeviceTensor X { get; }

        public DeviceTensor Output { get; }

        public DeviceTensor OneColumn { get; }

        public DeviceTensor OneIndex { get; }

        public DeviceTensor Integers { get; }

        public DeviceTensor Vector { get; }

        public void Dispose()
        {
            foreach (DeviceTensor tensor in _owned) tensor.Dispose();
        }

        private DeviceTensor Own(DeviceTensor tensor)
        {
            _owned.Add(tensor);
            return tensor;
        }
    }
}
