using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>A flash layer's memory and shape as kernels see them. A place is a row's distance from its block's start; verified nodes wait behind the block.</summary>
/// <remarks>
/// Runs have a memory of this kind in scratch, where the groups of one are slots that lie so close that a group's rows follow those of the group before it, and each head's rows follow each other.
/// </remarks>
/// <param name="spec">The layer.</param>
/// <param name="state">S.</param>
/// <param name="keys">k̂.</param>
/// <param name="values">v.</param>
/// <param name="keyPlaces">Rows of k̂ from one slot to the next.</param>
/// <param name="valuePlaces">Rows of v from one slot to the next.</param>
/// <param name="headRows">Rows of each head where they follow each other, of k̂ and of v; 0 where a row has all heads.</param>
internal readonly struct FlashMemory(AttentionSpec spec, ArrayView<float> state, ArrayView<float> keys, ArrayView<float> values, int keyPlaces, int valuePlaces, int headRows)
{
    /// <summary>Rows and columns that kernels read together, also where fewer are left: memory goes on so far behind its last number.</summary>
    public const int Behind = 32;

    public readonly ArrayView<float> State = state;
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly int QueryHeads = spec.QueryHeads;
    public readonly int KeyValueHeads = spec.KeyValueHeads;
    public readonly int HeadDim = spec.HeadDim;
    public readonly int ValueDim = spec.ValueDim;
    public readonly int GroupSize = spec.GroupSize;
    public readonly int KeyPlaces = keyPlaces;
    public readonly int ValuePlaces = valuePlaces;
    public readonly int Taps = spec.ConvTaps;
    public readonly int Window = Math.Max(0, spec.ConvTaps - 1);
    public readonly int Local = (int)spec.Local;
    public readonly int Norm = (int)spec.Norm;
    public readonly int Global = spec.Global ? 1 : 0;
    public readonly int HasAlpha = spec.HasAlpha ? 1 : 0;
    public readonly int HasKeys = spec.Global || spec.Local != LocalKind.None ? 1 : 0;
    public readonly float NormEpsilon = spec.NormEpsilon;

    /// <summary>Numbers from one row of k̂ to the next.</summary>
    public readonly int KeyStride = headRows > 0 ? spec.HeadDim : spec.KeyValueHeads * spec.HeadDim;

    /// <summary>Numbers from one row of v to the next.</summary>
    public readonly int ValueStride = headRows > 0 ? spec.ValueDim : spec.KeyValueHeads * spec.ValueDim;

    /// <summary>Numbers from one head's k̂ to the next one's.</summary>
    public readonly long KeyHead = (long)Math.Max(1, headRows) * spec.HeadDim;

    /// <summary>Numbers from one head's v to the next one's.</summary>
    public readonly long ValueHead = (long)Math.Max(1, headRows) * spec.ValueDim;

    /// <summary>The key/value head that a query head reads.</summary>
    public int KeyValueHead(int queryHead) => queryHead / (QueryHeads / KeyValueHeads);

    /// <summary>Where a row of S begins, <c>[slots, keyValueHeads, headDim, valueDim]</c>.</summary>
    public long StateRow(int slot, int kv, int c) => (((long)slot * KeyValueHeads + kv) * HeadDim + c) * ValueDim;

    /// <summary>Where a tile's q̂ begins, <c>[queryHeads, headDim, rows]</c>, behind those of the rows before it.</summary>
    public long Query(int row, int rows, int head) => ((long)row * QueryHeads + head * rows) * HeadDim;

    /// <summary>Where a tile's sums begin, <c>[queryHeads, rows, valueDim]</c>.</summary>
    public long Sum(int row, int rows, int head) => ((long)row * QueryHeads + head * rows) * ValueDim;

    /// <summary>Where a k̂ begins, <c>[slots, places, keyValueHeads, headDim]</c>; of runs <c>[keyValueHeads, rows, headDim]</c>.</summary>
    public long Key(int slot, int place, int kv) => ((long)slot * KeyPlaces + place) * KeyStride + kv * KeyHead;

    /// <summary>Where a value begins, <c>[slots, window + places, keyValueHeads, valueDim]</c>, of runs <c>[keyValueHeads, rows, valueDim]</c>; places before the block's start are negative.</summary>
    public long Value(int slot, int place, int kv) => ((long)slot * ValuePlaces + Window + place) * ValueStride + kv * ValueHead;

    /// <summary>Numbers that S of some slots takes.</summary>
    public static long States(AttentionSpec spec, long slots) => (spec.Global ? slots * spec.KeyValueHeads * spec.HeadDim * spec.ValueDim : 0) + Behind * spec.ValueDim;

    /// <summary>Numbers that some rows of k̂ take.</summary>
    public static long KeyRows(AttentionSpec spec, long rows) => (spec.Global || spec.Local != LocalKind.None ? rows * spec.KeyValueHeads * spec.HeadDim : 0) + Behind;

    /// <summary>Numbers that some rows of v take.</summary>
    public static long ValueRows(AttentionSpec spec, long rows) => rows * spec.KeyValueHeads * spec.ValueDim + Behind;

    public float Alpha(ArrayView<float> alpha) => HasAlpha != 0 ? alpha[0] : 1;
}

/// <summary>
/// What one call computes on the way: of each tile q̂ of its rows, <c>[queryHeads, headDim, rows]</c>, its local weights <c>[queryHeads, keys, rows]</c> and the sums that its rows share,
/// <c>[queryHeads, rows, valueDim]</c>; where the attention has a norm the terms before they are joined, <c>[tokens, queryHeads, valueDim]</c>.
/// </summary>
internal readonly struct FlashScratch(ArrayView<float> queries, ArrayView<float> weights, ArrayView<float> localSums, ArrayView<float> globalSums, FlashTermsApart terms)
{
    /// <summary>The same with other weights.</summary>
    public FlashScratch With(ArrayView<float> other) => new(Queries, other, LocalSums, GlobalSums, Terms);

    public readonly ArrayView<float> Queries = queries;
    public readonly ArrayView<float> Weights = weights;
    public readonly ArrayView<float> LocalSums = localSums;
    public readonly ArrayView<float> GlobalSums = globalSums;
    public readonly FlashTermsApart Terms = terms;
}

/// <summary>The three terms of each token.</summary>
internal readonly struct FlashTermsApart(ArrayView<float> local, ArrayView<float> global, ArrayView<float> convolution)
{
    public readonly ArrayView<float> Local = local;
    public readonly ArrayView<float> Global = global;
    public readonly ArrayView<float> Convolution = convolution;
}

/// <summary>The terms that one layer adds to its sums: the filters <c>[queryHeads, taps]</c>, and the same as eight neighbouring rows need them, <c>[queryHeads, values, 8]</c>.</summary>
internal readonly struct FlashTerms(ArrayView<float> alpha, ArrayView<float> taps, ArrayView<float> strips)
{
    public readonly ArrayView<float> Alpha = alpha;
    public readonly ArrayView<float> Taps = taps;
    public readonly ArrayView<float> Strips = strips;

    /// <summary>Values that eight rows see together, the last row's own first: whole eights, some of which none of them sees.</summary>
    public static int Values(int taps) => (taps + FlashTile.StripRows - 1 + 7) / 8 * 8;
}

/// <summary>One layer of grouped attention.</summary>
internal sealed class IlgpuFlashLayer : IlgpuLayer
{
    private readonly IlgpuBuffer _state;
    private IlgpuBuffer _keys, _values;
    private int _pendingCapacity = FlashTile.TreeRows;      // eight rows are read together, the last ones of a block too

    public IlgpuFlashLayer(IlgpuState owner, int index) : base(owner, index)
    {
        RequireReachable("sums", Spec.Global ? (long)Spec.KeyValueHeads * Spec.HeadDim * Spec.ValueDim : 1);
        RequireReachable(_pendingCapacity);
        _state = Buffer(FlashMemory.States(Spec, owner.Slots));
        _keys = Keys(_pendingCapacity);
        _values = Values(_pendingCapacity);
    }

    public FlashTiles Tiles => ((IlgpuState)Owner).FlashTiles(Spec.GroupSize, Window);

    public StepTables Tables => ((IlgpuState)Owner).Tables;

    public FlashMemory Memory => new(Spec, Floats(_state), Floats(_keys), Floats(_values), Spec.GroupSize + _pendingCapacity, Window + Spec.GroupSize + _pendingCapacity, 0);

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

    private IlgpuBuffer Keys(int pending) => Buffer(FlashMemory.KeyRows(Spec, (long)Owner.Slots * (Spec.GroupSize + pending)));

    private IlgpuBuffer Values(int pending) => Buffer(FlashMemory.ValueRows(Spec, (long)Owner.Slots * (Window + Spec.GroupSize + pending)));

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
