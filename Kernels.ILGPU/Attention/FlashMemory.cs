using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>A flash layer's memory and shape as kernels see them.</summary>
internal readonly struct FlashMemory(AttentionSpec spec, ArrayView<float> state, ArrayView<float> keys, ArrayView<float> values, ArrayView<float> pendingKeys, ArrayView<float> pendingValues, int pendingCapacity)
{
    public readonly ArrayView<float> State = state;
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly ArrayView<float> PendingKeys = pendingKeys;
    public readonly ArrayView<float> PendingValues = pendingValues;
    public readonly int PendingCapacity = pendingCapacity;
    public readonly int QueryHeads = spec.QueryHeads;
    public readonly int KeyValueHeads = spec.KeyValueHeads;
    public readonly int HeadDim = spec.HeadDim;
    public readonly int ValueDim = spec.ValueDim;
    public readonly int GroupSize = spec.GroupSize;
    public readonly int Taps = spec.ConvTaps;
    public readonly int Window = Math.Max(0, spec.ConvTaps - 1);
    public readonly int Local = (int)spec.Local;
    public readonly int Norm = (int)spec.Norm;
    public readonly int Global = spec.Global ? 1 : 0;
    public readonly int HasAlpha = spec.HasAlpha ? 1 : 0;
    public readonly int HasKeys = spec.Global || spec.Local != LocalKind.None ? 1 : 0;
    public readonly float NormEpsilon = spec.NormEpsilon;

    /// <summary>Where a row of S begins, <c>[slots, keyValueHeads, headDim, valueDim]</c>.</summary>
    public long StateRow(int slot, int kv, int c) => (((long)slot * KeyValueHeads + kv) * HeadDim + c) * ValueDim;

    /// <summary>A row of the tail's k̂, <c>[slots, groupSize, keyValueHeads, headDim]</c>.</summary>
    public long TailKeyRow(int slot, int place) => (long)slot * GroupSize + place;

    /// <summary>Where a value begins, <c>[slots, window + groupSize, keyValueHeads, valueDim]</c>; places before the block's start are negative.</summary>
    public long ValueIndex(int slot, int place, int kv) => (((long)slot * (Window + GroupSize) + Window + place) * KeyValueHeads + kv) * ValueDim;

    public long PendingRow(int slot, int node) => (long)slot * PendingCapacity + node;

    public float Alpha(ArrayView<float> alpha) => HasAlpha != 0 ? alpha[0] : 1;
}

/// <summary>What one call computes on the way: q̂, k̂ and v of the step's tokens, local weights <c>[tokens, queryHeads, groupSize]</c>, and the terms that a norm joins.</summary>
internal readonly struct FlashScratch(ArrayView<float> queries, ArrayView<float> keys, ArrayView<float> values, ArrayView<float> weights, ArrayView<float> global, ArrayView<float> convolution)
{
    public readonly ArrayView<float> Queries = queries;
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly ArrayView<float> Weights = weights;
    public readonly ArrayView<float> Global = global;
    public readonly ArrayView<float> Convolution = convolution;
}

/// <summary>Which round runs, and the first token that it may concern.</summary>
internal readonly struct FlashRound(int number, int first)
{
    public readonly int Number = number;
    public readonly int First = first;
}

/// <summary>Who appends rows: the entries of a step that move, or one slot the path that was accepted.</summary>
internal readonly struct FlashAppend(int slot, int length, int count, int round)
{
    public readonly int Slot = slot;
    public readonly int Length = length;
    public readonly int Count = count;
    public readonly int Round = round;

    public static FlashAppend Moving(int round) => new(-1, 0, 0, round);

    public static FlashAppend Pending(int slot, int length, int count) => new(slot, length, count, 0);

    public FlashAppend At(int round) => new(Slot, Length, Count, round);

    public FlashRun Run(int entry, StepView step, FlashMemory memory) => Slot >= 0
        ? new FlashRun(Slot, Length, Count, memory.PendingRow(Slot, 0), 1)
        : new FlashRun(step.Slot(entry), step.Length(entry), step.Moves(entry) != 0 ? step.Count(entry) : 0, step.Offset(entry), 0);
}

/// <summary>Rows that one slot appends.</summary>
internal readonly struct FlashRun(int slot, int length, int count, long first, int listed)
{
    public readonly int Slot = slot;
    public readonly int Length = length;
    public readonly int Count = count;
    public readonly long First = first;
    public readonly int Listed = listed;

    /// <summary>Where the i-th appended row lies: in order, or as the accepted path lists it.</summary>
    public long Row(int i, ArrayView<int> path) => First + (Listed != 0 ? path[i] : i);
}

/// <summary>One layer of grouped attention.</summary>
internal sealed class IlgpuFlashLayer : IlgpuLayer
{
    private readonly IlgpuBuffer _state, _keys, _values;

    public IlgpuFlashLayer(IlgpuState owner, int index) : base(owner, index)
    {
        long slots = owner.Slots;
        _state = Buffer(Spec.Global ? slots * Spec.KeyValueHeads * Spec.HeadDim * Spec.ValueDim : 1);
        _keys = Buffer(Spec.Global || Spec.Local != LocalKind.None ? slots * Spec.GroupSize * Spec.KeyValueHeads * Spec.HeadDim : 1);
        _values = Buffer(slots * (Window + Spec.GroupSize) * Spec.KeyValueHeads * Spec.ValueDim);
        Reserve(1);
    }

    public StepTables Tables => ((IlgpuState)Owner).Tables;

    public FlashMemory Memory => new(Spec, Floats(_state), Floats(_keys), Floats(_values), PendingKeys, PendingValues, PendingCapacity);

    private int Window => Math.Max(0, Spec.ConvTaps - 1);

    public override ArrayView<float> Field(int slot, StateField field, int rows)
    {
        long width = (long)field.Heads * field.Width;
        return field.Name switch
        {
            "S" => Floats(_state).SubView(slot * width * field.Height, rows * width),
            "key" => Floats(_keys).SubView(slot * width * Spec.GroupSize, rows * width),
            "window" => Floats(_values).SubView(slot * width * (Window + Spec.GroupSize), rows * width),
            _ => Floats(_values).SubView((slot * (long)(Window + Spec.GroupSize) + Window) * width, rows * width),
        };
    }

    public override IEnumerable<(StateField Field, int Rows)> Parts(int length) => Attentions.Find(Spec.Attention)!.Fields(Spec)
        .Select(field => (field, field.Rows == FieldRows.Tail ? Spec.GroupSize : field.Height));

    public override void Append(int slot, int length, ArrayView<int> path, int count) => Backend.FlashAppendPending(this, slot, length, path, count);

    public override void Reset(int slot)
    {
        foreach ((StateField field, int rows) in Parts(0))
            if (rows > 0) Field(slot, field, rows).MemSetToZero(Backend.Stream);
    }

    public override void Dispose()
    {
        _state.Dispose();
        _keys.Dispose();
        _values.Dispose();
        base.Dispose();
    }

    private static ArrayView<float> Floats(IlgpuBuffer buffer) => buffer.View.Cast<float>();

    private IlgpuBuffer Buffer(long floats) => new(Backend, checked(floats * sizeof(float)));
}
