using System.Runtime.InteropServices;
using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    /// <inheritdoc/>
    protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => new IlgpuState(this, specs, slots, capacity);

    /// <inheritdoc/>
    protected override bool SupportsCore(AttentionSpec spec, out string why)
    {
        ArgumentNullException.ThrowIfNull(spec);
        why = spec switch
        {
            { HeadDim: > 256 } => $"HeadDim: expected 1 to 256, got {spec.HeadDim}",
            { ValueDim: > 4096 } => $"ValueDim: expected 1 to 4096, got {spec.ValueDim}",
            _ => "",
        };
        return why.Length == 0;
    }

    /// <inheritdoc/>
    protected override void ReserveCore(AttentionState state, Step step, in AttentionInputs inputs)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(step);
        long query = 0, key = 0, value = 0;
        for (int layer = 0; layer < state.Layers; layer++)
        {
            AttentionSpec spec = state.Specs[layer];
            query = Math.Max(query, (long)spec.QueryHeads * spec.HeadDim);
            key = Math.Max(key, (long)spec.KeyValueHeads * spec.HeadDim);
            value = Math.Max(value, (long)spec.KeyValueHeads * spec.ValueDim);
        }

        ReserveFloats(inputs.Query, 0, step.Tokens * query);
        ReserveFloats(inputs.Key, 1, step.Tokens * key);
        ReserveFloats(inputs.Value, 2, step.Tokens * value);
    }

    /// <summary>Queues a copy between places of the device.</summary>
    internal void Copy(ArrayView<float> from, ArrayView<float> to)
    {
        try
        {
            from.CopyTo(Stream, to);
        }
        catch (AcceleratorException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Queues zeros.</summary>
    internal void Clear(ArrayView<float> to)
    {
        try
        {
            to.MemSetToZero(Stream);
        }
        catch (AcceleratorException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Copies a part of a state to the host.</summary>
    internal void Download(ArrayView<float> from, Span<float> to)
    {
        try
        {
            from.CopyToCPU(Stream, to);
            Waits++;
            Stream.Synchronize();
        }
        catch (AcceleratorException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Copies a part of a state from the host.</summary>
    internal void Upload(ReadOnlySpan<float> from, ArrayView<float> to)
    {
        try
        {
            to.CopyFromCPU(Stream, from);
            Waits++;
            Stream.Synchronize();                           // the caller may reuse the span
        }
        catch (AcceleratorException e)
        {
            throw Failed(e);
        }
    }
}

/// <summary>One layer's part of an <see cref="IlgpuState"/>. Every field lies as its logical shape says, so that copies are plain ranges.</summary>
internal abstract class IlgpuLayer(IlgpuState owner, int index) : LayerState(owner, index), IDisposable
{
    protected IlgpuBackend Backend { get; } = (IlgpuBackend)owner.Backend;

    /// <summary>Makes room for a tree of so many nodes; trees that wait in other slots stay.</summary>
    public abstract void Reserve(int nodes);

    /// <summary>Takes the memory that a step needs besides, and builds its tables.</summary>
    public virtual void Reserve(Step step) { }

    /// <summary>Where a field of a slot lies, <c>[rows, …]</c> from its first row on.</summary>
    public abstract ArrayView<float> Field(int slot, StateField field, int rows);

    /// <summary>All that a slot's value at a length needs.</summary>
    public abstract IEnumerable<(StateField Field, int Rows)> Parts(int length);

    /// <summary>Appends the pending rows of accepted paths.</summary>
    public abstract void Append(Step step, StepView view, CommitTables commit);

    public abstract void Reset(int slot);

    public abstract void Dispose();

    /// <summary>Refuses what a device could hold and not reach: OpenCL gives no view that begins beyond 2^31 elements of its memory.</summary>
    /// <param name="what">What is stored, slot after slot.</param>
    /// <param name="perSlot">Numbers of one slot.</param>
    /// <param name="with">What decides their number besides the slots.</param>
    /// <param name="within">Where the last view of a slot's numbers begins among them.</param>
    protected void RequireReachable(string what, long perSlot, string with = "", long within = 0)
    {
        Int128 last = (Int128)(Owner.Slots - 1) * perSlot + within;
        if (last <= int.MaxValue || Backend.Accelerator is not CLAccelerator) return;
        throw new NotSupportedException(
            $"{Backend.Name}: layer {Index}: of {Owner.Slots} slots{with} the last one's {what} would begin at element {last} of their memory: at most {int.MaxValue} on OpenCL; create several states of fewer slots");
    }
}

/// <summary>All layers' parts, and the tables of the step in progress.</summary>
internal sealed class IlgpuState : AttentionState
{
    private readonly IlgpuBackend _backend;
    private readonly IlgpuLayer[] _layers;
    private readonly CommitTables _commit;
    private readonly List<FlashTiles> _flashTiles = [];

    public IlgpuState(IlgpuBackend backend, IReadOnlyList<AttentionSpec> specs, int slots, int capacity) : base(backend, specs, slots, capacity)
    {
        _backend = backend;
        Tables = new StepTables(backend);
        _commit = new CommitTables(backend);
        _layers = new IlgpuLayer[specs.Count];
        try
        {
            for (int i = 0; i < _layers.Length; i++) _layers[i] = (IlgpuLayer)Attentions.Find(specs[i].Attention)!.CreateLayer(backend, this, i);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The topology of the step that attends.</summary>
    public StepTables Tables { get; }

    /// <summary>The same, cut for grouped attention.</summary>
    public FlashTiles FlashTiles(int groupSize, int window)
    {
        foreach (FlashTiles tiles in _flashTiles)
            if (tiles.GroupSize == groupSize && tiles.Window == window) return tiles;
        _flashTiles.Add(new FlashTiles(_backend, groupSize, window));
        return _flashTiles[^1];
    }

    public override ElementType StateType => ElementType.Float32;

    public override LayerState this[int layer] => _layers[layer];

    public override long Bytes(int slot)
    {
        long numbers = 0;
        foreach (IlgpuLayer layer in _layers)
            foreach ((StateField field, int rows) in layer.Parts(Length(slot))) numbers += (long)rows * field.Heads * field.Width;
        return numbers * sizeof(float);
    }

    protected override void BeginCore(Step step)
    {
        int nodes = 0;
        for (int i = 0; i < step.Entries; i++)
            if (!step[i].Moves) nodes = Math.Max(nodes, step[i].Count);
        foreach (IlgpuLayer layer in _layers) layer.Reserve(nodes);
        if (step.Tokens > 0)
        {
            Tables.View(step, this);
            foreach (IlgpuLayer layer in _layers) layer.Reserve(step);
        }

        _commit.Reserve(step);
    }

    protected override void ForkCore(int from, int to)
    {
        foreach (IlgpuLayer layer in _layers)
        {
            foreach ((StateField field, int rows) in layer.Parts(Length(from)))
                if (rows > 0) _backend.Copy(layer.Field(from, field, rows), layer.Field(to, field, rows));
        }
    }

    protected override void ResetCore(int slot)
    {
        foreach (IlgpuLayer layer in _layers) layer.Reset(slot);
    }

    protected override void CommitCore(Step step, ReadOnlySpan<int> accepted)
    {
        _commit.Upload(step, accepted);
        Append(step);
    }

    private protected override void CommitUnreadCore(Step step, DeviceTensor accepted)
    {
        _commit.Use(step, accepted);
        Append(step);
    }

    private protected override void ReadCommittedCore(Span<CommittedPath> paths) => _commit.Read(paths);

    protected internal override void ReadFieldCore(int layer, int slot, StateField field, Span<byte> to)
    {
        if (to.IsEmpty) return;
        _backend.Download(Field(layer, slot, field, to.Length), MemoryMarshal.Cast<byte, float>(to));
    }

    protected override void WriteFieldCore(int layer, int slot, StateField field, int length, ReadOnlySpan<byte> from)
    {
        if (from.IsEmpty) return;
        _backend.Upload(MemoryMarshal.Cast<byte, float>(from), Field(layer, slot, field, from.Length));
    }

    protected override void Dispose(bool disposing)
    {
        foreach (IlgpuLayer? layer in _layers) layer?.Dispose();
        Tables.Dispose();
        foreach (FlashTiles tiles in _flashTiles) tiles.Dispose();
        _commit.Dispose();
    }

    private void Append(Step step)
    {
        StepView view = Tables.View(step, this);
        _backend.CheckPaths(step, view, _commit.View);
        foreach (IlgpuLayer layer in _layers) layer.Append(step, view, _commit);
    }

    private ArrayView<float> Field(int layer, int slot, StateField field, int bytes) =>
        _layers[layer].Field(slot, field, bytes / sizeof(float) / (field.Heads * field.Width));
}
