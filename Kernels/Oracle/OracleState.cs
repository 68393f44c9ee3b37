using System.Runtime.InteropServices;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => new OracleState(this, specs, slots, capacity);
}

/// <summary>One layer's past of one sequence: the fields that its attention names, as plain lists.</summary>
internal sealed class OracleSlot
{
    private readonly IReadOnlyList<StateField> _fields;
    private readonly Dictionary<string, double[]> _fixed = [];
    private readonly Dictionary<string, List<double[]>> _rows = [];

    public OracleSlot(IReadOnlyList<StateField> fields)
    {
        _fields = fields;
        foreach (StateField field in fields)
        {
            if (field.Rows == FieldRows.Fixed) _fixed[field.Name] = new double[field.Heads * field.Height * field.Width];
            else _rows[field.Name] = [.. Enumerable.Range(0, field.Height).Select(_ => new double[field.Heads * field.Width])];
        }
    }

    private OracleSlot(OracleSlot other)
    {
        _fields = other._fields;
        _fixed = new(other._fixed);
        foreach ((string name, List<double[]> rows) in other._rows) _rows[name] = [.. rows];
    }

    /// <summary>What a commit does with a node of the tree that was verified last; null: nothing is pending.</summary>
    public Action<int>? Pending { get; set; }

    public bool Has(string name) => _fields.Any(field => field.Name == name);

    /// <summary>A field of fixed size, <c>[heads, height, width]</c>. Never written in place: copies share it.</summary>
    public double[] this[string name]
    {
        get => _fixed[name];
        set => _fixed[name] = value;
    }

    /// <summary>A field of rows, each <c>[heads, width]</c>. Rows are never written in place: copies share them.</summary>
    public List<double[]> Rows(string name) => _rows[name];

    /// <summary>The same value in lists of its own; nothing is pending there.</summary>
    public OracleSlot Copy() => new(this);

    /// <summary>Drops the rows past a length that lies in the same block.</summary>
    public void Rewind(int length, int blockLength)
    {
        foreach (StateField field in _fields)
        {
            if (field.Rows is not (FieldRows.Tail or FieldRows.Past)) continue;
            int keep = field.RowsAt(length, blockLength);
            _rows[field.Name].RemoveRange(keep, _rows[field.Name].Count - keep);
        }
    }

    public double[] Read(StateField field) => field.Rows == FieldRows.Fixed ? _fixed[field.Name] : [.. _rows[field.Name].SelectMany(row => row)];

    public void Write(StateField field, double[] numbers)
    {
        if (field.Rows == FieldRows.Fixed) _fixed[field.Name] = numbers;
        else _rows[field.Name] = [.. numbers.Chunk(field.Heads * field.Width)];
    }
}

/// <summary>One layer of the oracle's state.</summary>
internal sealed class OracleLayerState(OracleState owner, int index) : LayerState(owner, index)
{
    public OracleSlot[] Slots { get; } = [.. Enumerable.Range(0, owner.Slots).Select(_ => new OracleSlot(owner.Fields[index]))];

    /// <summary>Visits every token of a step with its own past: the slot itself where the entry moves, a copy per node where it does not.</summary>
    /// <param name="step">The step.</param>
    /// <param name="append">Adds a token's rows to a past.</param>
    /// <param name="attend">Computes a token's output from a past that ends with that token.</param>
    /// <param name="close">Moves the fixed fields of a past whose block is complete.</param>
    public void Visit(Step step, Action<OracleSlot, int> append, Action<OracleSlot, int> attend, Action<OracleSlot> close)
    {
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            OracleSlot slot = Slots[entry.Slot];
            var after = new OracleSlot[entry.Count];
            for (int node = 0; node < entry.Count; node++)
            {
                int parent = entry.Tree.Parent(node);
                OracleSlot past = entry.Moves ? slot : (parent < 0 ? slot : after[parent]).Copy();
                append(past, entry.Offset + node);
                attend(past, entry.Offset + node);
                close(past);
                after[node] = past;
            }

            if (entry.Moves) continue;
            slot.Pending = node =>
            {
                append(slot, entry.Offset + node);
                close(slot);
            };
        }
    }
}

/// <summary>The oracle's state: float64, plain lists.</summary>
internal sealed class OracleState : AttentionState
{
    private readonly OracleLayerState[] _layers;

    public OracleState(OracleBackend backend, IReadOnlyList<AttentionSpec> specs, int slots, int capacity) : base(backend, specs, slots, capacity) =>
        _layers = [.. Enumerable.Range(0, specs.Count).Select(layer => new OracleLayerState(this, layer))];

    public override LayerState this[int layer] => _layers[layer];

    public override ElementType StateType => ElementType.Float64;

    public override long Bytes(int slot)
    {
        int length = Length(slot);
        long numbers = 0;
        for (int layer = 0; layer < Layers; layer++)
            foreach (StateField field in Fields[layer])
                numbers += field.ShapeAt(length, Specs[layer].BlockLength).Aggregate(1L, (product, size) => product * size);
        return numbers * sizeof(double);
    }

    protected override void BeginCore(Step step)
    {
        for (int i = 0; i < step.Entries; i++)
            foreach (OracleLayerState layer in _layers) layer.Slots[step[i].Slot].Pending = null;
    }

    protected override void ForkCore(int from, int to)
    {
        foreach (OracleLayerState layer in _layers) layer.Slots[to] = layer.Slots[from].Copy();
    }

    protected override void ResetCore(int slot)
    {
        foreach (OracleLayerState layer in _layers) layer.Slots[slot] = new OracleSlot(Fields[layer.Index]);
    }

    protected override void RewindCore(int slot, int length)
    {
        foreach (OracleLayerState layer in _layers) layer.Slots[slot].Rewind(length, layer.Spec.BlockLength);
    }

    protected override void CommitCore(Step step, ReadOnlySpan<int> accepted)
    {
        for (int entry = 0; entry < step.Entries; entry++)
            foreach (OracleLayerState layer in _layers)
                foreach (int node in PathOf(step, entry, accepted)) layer.Slots[step[entry].Slot].Pending!(node);
    }

    protected internal override void ReadFieldCore(int layer, int slot, StateField field, Span<byte> to) =>
        MemoryMarshal.AsBytes<double>(_layers[layer].Slots[slot].Read(field)).CopyTo(to);

    protected override void WriteFieldCore(int layer, int slot, StateField field, int length, ReadOnlySpan<byte> from) =>
        _layers[layer].Slots[slot].Write(field, MemoryMarshal.Cast<byte, double>(from).ToArray());

    protected override void Dispose(bool disposing) { }
}
