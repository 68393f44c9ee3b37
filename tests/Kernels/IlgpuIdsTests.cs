using ILGPU.Runtime.OpenCL;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Ids are checked without a copy to the host where it is known what they can be; and checked they are, whoever wrote them.</summary>
public class IlgpuIdsTests
{
    private const int TableRows = 7;

    public static TheoryData<string> Devices => IlgpuDevices.Names;

    public static TheoryData<string> Asynchronous => IlgpuDevices.Asynchronous;

    [Theory, MemberData(nameof(Asynchronous))]
    public void Ids_that_the_host_wrote_or_an_op_chose_wait_for_nothing(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        var backend = (IlgpuBackend)rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), logits = rig.Upload(Argument.Random(2, ElementType.Float32, 0, 4, TableRows));
        DeviceTensor written = rig.Upload(0, 6, 3, 3), chosen = rig.IntegerOutput(4), some = rig.IntegerOutput(4, 2), rows = rig.Output(0, 4, 3), numbers = rig.Output(0, 4), values = rig.Output(0, 4, 2);
        Action[] ops =
        [
            () => backend.Embedding(table, written, rows), () => backend.LogProbability(logits, written, numbers), () => backend.Embedding(table, written.Slice(0, 1, 2), rows.Slice(0, 0, 2)),
            () => backend.ArgMax(logits, chosen), () => backend.Embedding(table, chosen, rows),
            () => backend.TopK(logits, values, some), () => backend.Embedding(table, some.View(8).Slice(0, 2, 4), rows),
        ];
        foreach (Action op in ops) op();                    // kernels are compiled
        long waits = backend.Waits;
        foreach (Action op in ops) op();
        Assert.Equal(waits, backend.Waits);
    }

    // A batch or a tree shrinks: what lay beyond it no longer counts.
    [Theory, MemberData(nameof(Asynchronous))]
    public void Fewer_and_smaller_ids_wait_for_nothing_either(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        var backend = (IlgpuBackend)rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), rows = rig.Output(0, 4, 3), ids = rig.Upload(0, 1, 2, 6);
        backend.Embedding(table, ids, rows);                // the kernel is compiled
        backend.Write<int>(ids.First(3), [1, 2, 0]);
        Embed(3);
        backend.Write<int>(ids.Slice(0, 2, 2), [0, 0]);
        Embed(1, from: 2);
        backend.Write<int>(ids.First(1), [0]);
        Embed(1);

        void Embed(int count, int from = 0)
        {
            long waits = backend.Waits;
            backend.Embedding(table.First(count), ids.Slice(0, from, count), rows.First(count));
            Assert.Equal((count, from, waits), (count, from, backend.Waits));
        }
    }

    [Theory, MemberData(nameof(Devices))]
    public void What_lost_work_was_to_write_is_not_taken_for_written(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        var backend = (IlgpuBackend)rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), rows = rig.Output(0, 1, 3), ids = rig.Upload(0), logits = rig.Upload(Argument.Random(2, ElementType.Float32, 0, 1, TableRows));
        backend.ArgMax(logits, ids);
        ((IlgpuBuffer)ids.Buffer).Write(0, BitConverter.GetBytes(TableRows));       // as if the kernel had not run
        Assert.IsType<OutOfDeviceMemoryException>(backend.Failed(new CLException(CLError.CL_MEM_OBJECT_ALLOCATION_FAILURE)));
        Assert.Equal("ids: expected 0 to 6, got 7 (Parameter 'ids')", Assert.Throws<ArgumentException>(() => backend.Embedding(table, ids, rows)).Message);
        backend.ArgMax(logits, ids);
        backend.Embedding(table, ids, rows);
    }

    // The device's memory is changed behind the backend's back, to see which of the two is looked at.
    [Theory, MemberData(nameof(Devices))]
    public void Positions_that_the_host_wrote_do_not_come_back(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        var backend = (IlgpuBackend)rig.Backend;
        var spec = new RotarySpec { RotaryDim = 2 };
        DeviceTensor positions = rig.Upload(1, 2, 3, 4), logits = rig.Upload(new Argument([1, 3], [0, 0, 1]));
        Behind(5, 5, 5, 5);
        Are(positions, 1, 2, 3, 4);
        Are(positions.Slice(0, 1, 2), 2, 3);
        Are(positions.View(2, 2).Slice(1, 0, 1).View(2), 5, 5);     // not one piece
        backend.Write<int>(positions.Slice(0, 3, 1), [9]);
        Are(positions.Slice(0, 3, 1), 9);
        Are(positions, 5, 5, 5, 9);
        backend.Write<int>(positions, [1, 2, 3, 4]);
        backend.ArgMax(logits, positions.First(1));
        Are(positions, 2, 2, 3, 4);
        backend.Write<int>(positions, [1, 2, 3, 4]);
        Behind(5, 6, 7, 8);
        Assert.IsType<OutOfDeviceMemoryException>(backend.Failed(new CLException(CLError.CL_MEM_OBJECT_ALLOCATION_FAILURE)));
        Are(positions, 5, 6, 7, 8);

        int[] many = [.. Enumerable.Range(0, (1 << 16) + 1)];       // more than the host keeps
        Are(rig.Upload(many), many);

        void Behind(params int[] numbers) => ((IlgpuBuffer)positions.Buffer).Write(0, System.Runtime.InteropServices.MemoryMarshal.AsBytes<int>(numbers));

        void Are(DeviceTensor tensor, params int[] numbers)
        {
            DeviceTensor cosines = rig.Output(0, numbers.Length, 1), sines = rig.Output(0, numbers.Length, 1);
            backend.RotaryAngles(spec, tensor, cosines, sines);
            Assert.Equal(numbers.Select(position => (float)Math.Cos(position)), rig.Read(cosines));
        }
    }

    [Fact]
    public void Bounds_are_of_what_was_written_last()
    {
        IntegerBounds known = new(10, 4, 0, 9);
        foreach ((int first, int count, int largest) in ((int, int, int)[])[(10, 4, 3), (10, 1, 3), (11, 2, 3), (8, 8, 3), (9, 3, 3), (13, 3, 3), (20, 2, 3), (11, 2, 20)])
            Assert.Equal(new(first, count, 1, largest), known.Overwritten(new(first, count, 1, largest), whole: true));
        // With gaps: what lies in them is as it was, and known only where all of it was.
        Assert.Equal(known, known.Overwritten(new(10, 4, 1, 3), whole: false));
        Assert.Equal(new(10, 4, -1, 20), known.Overwritten(new(11, 3, -1, 20), whole: false));
        foreach ((int first, int count) in ((int, int)[])[(9, 5), (10, 5), (9, 3), (20, 2)]) Assert.Equal(default, known.Overwritten(new(first, count, 1, 3), whole: false));
        Assert.Equal(default, default(IntegerBounds).Overwritten(new(0, 3, 1, 3), whole: false));
        Assert.False(default(IntegerBounds).AreIndices(0, 1, int.MaxValue));
    }

    [Theory, MemberData(nameof(Devices))]
    public void What_is_written_over_known_ids_is_checked(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        KernelBackend backend = rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), rows = rig.Output(0, 4, 3);
        DeviceTensor ids = rig.Upload(0, 6, 3, 3), wide = rig.Own(backend.Upload<int>([1, 100, 2, 100, 3, 100, 4, 100], 4, 2)), never = rig.Own(backend.Allocate(ElementType.Int32, 4));
        Taken(ids);
        Taken(never);
        backend.Write<int>(ids.Slice(0, 2, 1), [7]);
        Refused(ids, 7);
        Taken(ids.Slice(0, 0, 2));
        backend.Write<int>(ids.Slice(0, 2, 1), [6]);
        Taken(ids);
        backend.Write<int>(ids, [0, -1, 2, 3]);
        Refused(ids, -1);
        backend.Write<int>(ids.Slice(0, 0, 2), [1, 1]);
        Taken(ids);
        backend.Write<int>(ids.Slice(0, 1, 3), [1, 1, 9]);  // not a part of what was known
        backend.Write<int>(ids.Slice(0, 0, 2), [1, 1]);
        Refused(ids, 9);

        // A column between others: what lies in the gaps is not what was written.
        DeviceTensor column = wide.Slice(1, 0, 1).View(4);
        backend.Write<int>(column, [1, 1, 1, 1]);
        Taken(column);
        Refused(wide.View(8).Slice(0, 0, 4), 100);

        void Taken(DeviceTensor known) => backend.Embedding(table, known, rows.First(known.Rows));

        void Refused(DeviceTensor known, int got) =>
            Assert.Equal($"ids: expected 0 to 6, got {got} (Parameter 'ids')", Assert.Throws<ArgumentException>(() => backend.Embedding(table, known, rows.First(known.Rows))).Message);
    }

    [Theory, MemberData(nameof(Devices))]
    public void What_an_op_writes_is_checked_against_the_table(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        KernelBackend backend = rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), rows = rig.Output(0, 4, 3), ids = rig.Upload(0, 1, 2, 3);
        // More columns than the table has rows: it depends on the numbers.
        var numbers = new float[4 * 20];
        for (int i = 0; i < 4; i++) numbers[i * 20 + i] = 1;
        DeviceTensor logits = rig.Own(backend.Upload<float>(numbers, 4, 20));
        backend.ArgMax(logits, ids);
        Taken();
        backend.Write<float>(logits.Slice(0, 2, 1).Slice(1, 19, 1), [2]);
        backend.ArgMax(logits, ids);
        Refused(19);

        // Accepted paths are padded by -1, which is no row of a table.
        var step = new Step();
        step.Verify(0, TokenTree.Path(4));
        backend.Write<int>(ids, [0, 1, 2, 3]);
        Taken();
        backend.Accept(step, rig.Upload(0, 1, 2, 3), rig.Upload(1, 5, 5, 5), ids.View(1, 4), rig.IntegerOutput(1));
        Refused(-1);
        backend.Write<int>(ids, [0, 1, 2, 3]);
        backend.AcceptTypical(step, rig.Upload(0, 1, 2, 3), logits, 1, 1, 1, ids.View(1, 4));
        Refused(-1);
        backend.Write<int>(ids, [0, 1, 2, 3]);
        backend.Accept(step, rig.Upload(0, 1, 2, 3), rig.Upload(9, 9, 9, 9), rig.IntegerOutput(1, 4), ids.Slice(0, 0, 1));
        Refused(9);

        void Taken() => backend.Embedding(table, ids, rows);

        void Refused(int got) => Assert.Equal($"ids: expected 0 to 6, got {got} (Parameter 'ids')", Assert.Throws<ArgumentException>(() => backend.Embedding(table, ids, rows)).Message);
    }

    [Theory, MemberData(nameof(Devices))]
    public void Memory_of_somebody_else_is_looked_at_every_time(string name)
    {
        using var rig = new OpRig(IlgpuDevices.Open(name));
        KernelBackend backend = rig.Backend;
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, TableRows, 3)), rows = rig.Output(0, 4, 3), theirs = rig.Upload(0, 1, 2, 3);
        using DeviceTensor ours = backend.Wrap(((IlgpuBuffer)theirs.Buffer).Handle, ElementType.Int32, [4]);
        backend.Write<int>(ours, [0, 1, 2, 3]);
        backend.Embedding(table, ours, rows);
        backend.Write<int>(theirs, [0, 1, 7, 3]);
        Assert.Equal("ids: expected 0 to 6, got 7 (Parameter 'ids')", Assert.Throws<ArgumentException>(() => backend.Embedding(table, ours, rows)).Message);
    }
}
