using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>A flash layer's memory and shape as kernels see them. A place is a row's distance from its block's start; verified nodes wait behind the block.</summary>
internal readonly struct FlashMemory(AttentionSpec spec, ArrayView<float> state, ArrayView<float> keys, ArrayView<float> values, int pendingCapacity)
{
    public readonly ArrayView<float> State = state;
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly int QueryHeads = spec.QueryHeads;
    public readonly int KeyValueHeads = spec.KeyValueHeads;
    public readonly int HeadDim = spec.HeadDim;
    public readonly int ValueDim = spec.ValueDim;
    public readonly int GroupSize = spec.GroupSize;
    public readonly int Places = spec.GroupSize + pendingCapacity;
    public readonly int Taps = spec.ConvTaps;
    public readonly int Window = Math.Max(0, spec.ConvTaps - 1);
    public readonly int Local = (int)spec.Local;
    public readonly int Norm = (int)spec.Norm;
    public readonly int Global = spec.Global ? 1 : 0;
    public readonly int HasAlpha = spec.HasAlpha ? 1 : 0;
    public readonly int HasKeys = spec.Global || spec.Local != LocalKind.None ? 1 : 0;
    public readonly float NormEpsilon = spec.NormEpsilon;

    /// <summary>Numbers between two rows of k̂.</summary>
    public int KeyStride => KeyValueHeads * HeadDim;

    /// <summary>Numbers between two rows of v.</summary>
    public int ValueStride => KeyValueHeads * ValueDim;

    /// <summary>The key/value head that a query head reads.</summary>
    public int KeyValueHead(int queryHead) => queryHead / (QueryHeads / KeyValueHeads);

    /// <summary>Where a row of S begins, <c>[slots, keyValueHeads, headDim, valueDim]</c>.</summary>
    public long StateRow(int slot, int kv, int c) => (((long)slot * KeyValueHeads + kv) * HeadDim + c) * ValueDim;

    /// <summary>Where a k̂ begins, <c>[slots, places, keyValueHeads, headDim]</c>.</summary>
    public long Key(int slot, int place, int kv) => ((long)slot * Places + place) * KeyStride + kv * HeadDim;

    /// <summary>Where a value begins, <c>[slots, window + places, keyValueHeads, valueDim]</c>; places before the block's start are negative.</summary>
    public long Value(int slot, int place, int kv) => ((long)slot * (Window + Places) + Window + place) * ValueStride + kv * ValueDim;

    public float Alpha(ArrayView<float> alpha) => HasAlpha != 0 ? alpha[0] : 1;
}

/// <summary>What one call computes on the way: q̂ of the step's tokens, the tiles' local weights <c>[tiles, queryHeads, keys, rows]</c>, and the terms before they are joined, <c>[tokens, queryHeads, valueDim]</c>.</summary>
internal readonly struct FlashScratch(ArrayView<float> queries, ArrayView<float> weights, ArrayView<float> local, ArrayView<float> global, ArrayView<float> convolution)
{
    /// <summary>The same with other weights.</summary>
    public FlashScratch With(ArrayView<float> other) => new(Queries, other, Local, Global, Convolution);

    public readonly ArrayView<float> Queries = queries;
    public readonly ArrayView<float> Weights = weights;
    public readonly ArrayView<float> Local = local;
    public readonly ArrayView<float> Global = global;
    public readonly ArrayView<float> Convolution = convolution;
}

/// <summary>The terms that one layer adds to its sums.</summary>
internal readonly struct FlashTerms(ArrayView<float> alpha, ArrayView<float> taps)
{
    public readonly ArrayView<float> Alpha = alpha;
    public readonly ArrayView<float> Taps = taps;
}

/// <summary>One layer of grouped attention.</summary>
internal sealed class IlgpuFlashLayer : IlgpuLayer
{
    private readonly IlgpuBuffer _state;
    private IlgpuBuffer _keys, _values;
    private int _pendingCapacity = FlashTile.StripRows;     // eight rows are read together, the last ones of a block too

    public IlgpuFlashLayer(IlgpuState owner, int index) : base(owner, index)
    {
        RequireReachable("sums", Spec.Global ? (long)Spec.KeyValueHeads * Spec.HeadDim * Spec.ValueDim : 1);
        RequireReachable(_pendingCapacity);
        _state = Buffer(Spec.Global ? (long)owner.Slots * Spec.KeyValueHeads * Spec.HeadDim * Spec.ValueDim : 1);
        _keys = Keys(_pendingCapacity);
        _values = Values(_pendingCapacity);
    }

    public FlashTiles Tiles => ((IlgpuState)Owner).FlashTiles(Spec.GroupSize);

    public StepTables Tables => ((IlgpuState)Owner).Tables;

    public FlashMemory Memory => new(Spec, Floats(_state), Floats(_keys), Floats(_values), _pendingCapacity);

    private int Window => Math.Max(0, Spec.ConvTaps - 1);

    private bool HasKeys => Spec.Global || Spec.Local != LocalKind.None;

    public override void Reserve(int nodes)
    {
        if (nodes <= _pendingCapacity) return;
        int capacity = Math.Min(TokenTree.MaxNodes, Math.Max(nodes, 2 * _pendingCapacity));
        RequireReachable(capacity);
        IlgpuBuffer keys = Keys(capacity), values;
        try
        {
            values = Values(capacity);
        }
        catch
        {
            keys.Dispose();
            throw;
        }

        if (HasKeys) Move(_keys, keys, Spec.GroupSize, capacity, Spec.KeyValueHeads * Spec.HeadDim);
        Move(_values, values, Window + Spec.GroupSize, capacity, Spec.KeyValueHeads * Spec.ValueDim);
        Backend.Wait();
        _keys.Dispose();
        _values.Dispose();
        (_keys, _values, _pendingCapacity) = (keys, values, capacity);
    }

    public override void Reserve(Step step) => Backend.FlashReserve(this, step);

    public override ArrayView<float> Field(int slot, StateField field, int rows)
    {
        long width = (long)field.Heads * field.Width;
        FlashMemory memory = Memory;
        return field.Name switch
        {
            "S" => Floats(_state).SubView(memory.StateRow(slot, 0, 0), rows * width),
            "key" => Floats(_keys).SubView(memory.Key(slot, 0, 0), rows * width),
            "window" => Floats(_values).SubView(memory.Value(slot, -Window, 0), rows * width),
            _ => Floats(_values).SubView(memory.Value(slot, 0, 0), rows * width),
        };
    }

    public override IEnumerable<(StateField Field, int Rows)> Parts(int length) => Attentions.Find(Spec.Attention)!.Fields(Spec)
        .Select(field => (field, field.Rows == FieldRows.Tail ? Spec.GroupSize : field.Height));

    public override void Append(Step step, StepView view, CommitTables commit) => Backend.FlashAppend(this, step, view, commit);

    public override void Reset(int slot)
    {
        foreach ((StateField field, int rows) in Parts(0))
            if (rows > 0) Backend.Clear(Field(slot, field, rows));
    }

    public override void Dispose()
    {
        _state.Dispose();
        _keys.Dispose();
        _values.Dispose();
    }

    private void RequireReachable(int pending)
    {
        string trees = $" with room for trees of {pending} nodes";
        if (HasKeys) RequireReachable("keys", (long)(Spec.GroupSize + pending) * Spec.KeyValueHeads * Spec.HeadDim, trees);
        RequireReachable("values", (long)(Window + Spec.GroupSize + pending) * Spec.KeyValueHeads * Spec.ValueDim, trees, (long)Window * Spec.KeyValueHeads * Spec.ValueDim);
    }

    private static ArrayView<float> Floats(IlgpuBuffer buffer) => buffer.View.Cast<float>();

    private IlgpuBuffer Keys(int pending) => Buffer(HasKeys ? (long)Owner.Slots * (Spec.GroupSize + pending) * Spec.KeyValueHeads * Spec.HeadDim : 1);

    private IlgpuBuffer Values(int pending) => Buffer((long)Owner.Slots * (Window + Spec.GroupSize + pending) * Spec.KeyValueHeads * Spec.ValueDim);

    private IlgpuBuffer Buffer(long floats) => new(Backend, checked(floats * sizeof(float)));

    /// <summary>Takes every slot's rows along, those of trees that wait for their commit too.</summary>
    private void Move(IlgpuBuffer from, IlgpuBuffer to, int rows, int capacity, int width)
    {
        for (int slot = 0; slot < Owner.Slots; slot++)
        {
            long count = (long)(rows + _pendingCapacity) * width;
            Backend.Copy(Floats(from).SubView(slot * count, count), Floats(to).SubView((long)slot * (rows + capacity) * width, count));
        }
    }
}
