using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int SoftmaxBlock = 64;                    // absolute positions that share one update of the maximum

    private Action<AcceleratorStream, Index1D, Rows, Rows, StepView, SoftmaxMemory>? _softmaxStore;
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, StepView, SoftmaxMemory>? _softmaxAttend;
    private Action<AcceleratorStream, Index1D, StepView, CommitView, SoftmaxMemory>? _softmaxAppend;

    /// <inheritdoc/>
    protected internal override LayerState CreateSoftmaxLayer(AttentionState owner, int index) => new IlgpuSoftmaxLayer((IlgpuState)owner, index);

    /// <inheritdoc/>
    protected override void SoftmaxAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(step);
        if (step.Tokens == 0) return;
        AttentionSpec spec = layer.Spec;
        var memory = (IlgpuSoftmaxLayer)state;
        StepView view = memory.Tables.View(step, state.Owner);
        SoftmaxMemory shape = memory.Memory;
        int channels = spec.KeyValueHeads * Math.Max(spec.HeadDim, spec.ValueDim);
        Load(ref _softmaxStore, SoftmaxStoreKernel)(
            Stream, Threads((long)step.Tokens * channels), Floats(inputs.Key, 1), Floats(inputs.Value, 2), view, shape);
        Load(ref _softmaxAttend, SoftmaxAttendKernel)(
            Stream, (checked(step.Tokens * spec.QueryHeads), RowGroup.Size), Floats(inputs.Query, 0), Output(output), view, shape);
    }

    /// <summary>Appends the pending rows of accepted paths.</summary>
    internal void SoftmaxAppend(IlgpuSoftmaxLayer layer, Step step, StepView view, CommitTables commit)
    {
        int channels = layer.Spec.KeyValueHeads * Math.Max(layer.Spec.HeadDim, layer.Spec.ValueDim);
        Load(ref _softmaxAppend, SoftmaxAppendKernel)(Stream, Threads((long)step.Entries * channels), view, commit.View, layer.Memory);
    }

    // One thread a channel of a new token: its key and its value go into the cache where the entry moves, else beside it.
    private static void SoftmaxStoreKernel(Index1D index, Rows key, Rows value, StepView step, SoftmaxMemory memory)
    {
        int channels = memory.KeyValueHeads * XMath.Max(memory.HeadDim, memory.ValueDim);
        int token = index / channels, channel = index % channels, entry = step.Entry(token);
        long row = step.Moves(entry) != 0
            ? memory.CacheRow(step.Slot(entry), step.Length(entry) + step.Depth(token))
            : memory.PendingRow(step.Slot(entry), token - step.Offset(entry));
        int keyRow = memory.KeyValueHeads * memory.HeadDim, valueRow = memory.KeyValueHeads * memory.ValueDim;
        if (step.Moves(entry) != 0)
        {
            if (channel < keyRow) memory.Keys[row * keyRow + channel] = key[token, channel];
            if (channel < valueRow) memory.Values[row * valueRow + channel] = value[token, channel];
        }
        else
        {
            if (channel < keyRow) memory.PendingKeys[row * keyRow + channel] = key[token, channel];
            if (channel < valueRow) memory.PendingValues[row * valueRow + channel] = value[token, channel];
        }
    }

    // A group a token and query head. Blocks of 64 positions: all scored, one update of the maximum, then every thread adds the rows in order to the channels it owns.
    private static void SoftmaxAttendKernel(Rows query, Rows output, StepView step, SoftmaxMemory memory)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Size);
        ArrayView<float> scores = SharedMemory.Allocate<float>(SoftmaxBlock);
        int token = Grid.IdxX / memory.QueryHeads, head = Grid.IdxX % memory.QueryHeads, thread = Group.IdxX;
        int entry = step.Entry(token), slot = step.Slot(entry), length = step.Length(entry), moves = step.Moves(entry);
        int kv = head / (memory.QueryHeads / memory.KeyValueHeads), last = length + step.Depth(token);
        int fromQuery = head * memory.HeadDim, to = head * memory.ValueDim;
        float largest = float.NegativeInfinity, sum = 0;
        for (int e = thread; e < memory.ValueDim; e += RowGroup.Size) output[token, to + e] = 0;

        for (int block = 0; block <= last; block += SoftmaxBlock)
        {
            int count = XMath.Min(SoftmaxBlock, last + 1 - block);
            float own = float.NegativeInfinity;
            for (int j = thread; j < count; j += RowGroup.Size)
            {
                int position = block + j;
                bool cached = position < length || moves != 0;
                long row = cached ? memory.CacheRow(slot, position) : memory.PendingRow(slot, step.Ancestor(token, position - length) - step.Offset(entry));
                long from = (row * memory.KeyValueHeads + kv) * memory.HeadDim;
                float dot = 0;
                if (cached)
                    for (int c = 0; c < memory.HeadDim; c++) dot = Fused.MultiplyAdd(query[token, fromQuery + c], memory.Keys[from + c], dot);
                else
                    for (int c = 0; c < memory.HeadDim; c++) dot = Fused.MultiplyAdd(query[token, fromQuery + c], memory.PendingKeys[from + c], dot);
                dot *= memory.Scale;
                scores[j] = dot;
                own = RowGroup.Larger(own, dot);
            }

            float before = largest;
            largest = RowGroup.Larger(before, RowGroup.Max(shared, own));
            float shrink = XMath.Exp(before - largest);
            for (int j = thread; j < count; j += RowGroup.Size) scores[j] = XMath.Exp(scores[j] - largest);
            Group.Barrier();
            sum *= shrink;
            for (int j = 0; j < count; j++) sum += scores[j];
            for (int e = thread; e < memory.ValueDim; e += RowGroup.Size)
            {
                float mixed = output[token, to + e] * shrink;
                for (int j = 0; j < count; j++)
                {
                    int position = block + j;
                    bool cached = position < length || moves != 0;
                    long row = cached ? memory.CacheRow(slot, position) : memory.PendingRow(slot, step.Ancestor(token, position - length) - step.Offset(entry));
                    long at = (row * memory.KeyValueHeads + kv) * memory.ValueDim + e;
                    mixed = Fused.MultiplyAdd(scores[j], (cached ? memory.Values[at] : memory.PendingValues[at]), mixed);
                }

                output[token, to + e] = mixed;
            }

            Group.Barrier();                                // before the next block overwrites the scores
        }

        for (int e = thread; e < memory.ValueDim; e += RowGroup.Size) output[token, to + e] /= sum;
    }

    // One thread a channel of an entry: the nodes of its path one after the other.
    private static void SoftmaxAppendKernel(Index1D index, StepView step, CommitView commit, SoftmaxMemory memory)
    {
        int channels = memory.KeyValueHeads * XMath.Max(memory.HeadDim, memory.ValueDim);
        int entry = index / channels, channel = index % channels, slot = step.Slot(entry), length = step.Length(entry), count = commit.Count(entry);
        int keyRow = memory.KeyValueHeads * memory.HeadDim, valueRow = memory.KeyValueHeads * memory.ValueDim;
        for (int i = 0; i < count; i++)
        {
            long from = memory.PendingRow(slot, commit.Node(entry, i)), to = memory.CacheRow(slot, length + i);
            if (channel < keyRow) memory.Keys[to * keyRow + channel] = memory.PendingKeys[from * keyRow + channel];
            if (channel < valueRow) memory.Values[to * valueRow + channel] = memory.PendingValues[from * valueRow + channel];
        }
    }
}

/// <summary>A softmax layer's memory and shape as kernels see them; rows are <c>[keyValueHeads, dim]</c>.</summary>
internal readonly struct SoftmaxMemory(AttentionSpec spec, ArrayView<float> keys, ArrayView<float> values, ArrayView<float> pendingKeys, ArrayView<float> pendingValues, int capacity, int pendingCapacity)
{
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly ArrayView<float> PendingKeys = pendingKeys;
    public readonly ArrayView<float> PendingValues = pendingValues;
    public readonly int Capacity = capacity;
    public readonly int PendingCapacity = pendingCapacity;
    public readonly int QueryHeads = spec.QueryHeads;
    public readonly int KeyValueHeads = spec.KeyValueHeads;
    public readonly int HeadDim = spec.HeadDim;
    public readonly int ValueDim = spec.ValueDim;
    public readonly float Scale = spec.ScoreScale ?? 1 / MathF.Sqrt(spec.HeadDim);

    public long CacheRow(int slot, int position) => (long)slot * Capacity + position;

    public long PendingRow(int slot, int node) => (long)slot * PendingCapacity + node;
}

/// <summary>One softmax layer: keys and values of every position, <c>[slots, capacity, keyValueHeads, dim]</c>.</summary>
internal sealed class IlgpuSoftmaxLayer : IlgpuLayer
{
    private readonly IlgpuBuffer _keys, _values;
    private IlgpuBuffer _pendingKeys, _pendingValues;
    private int _pendingCapacity;

    public IlgpuSoftmaxLayer(IlgpuState owner, int index) : base(owner, index)
    {
        string capacity = $" with capacity {owner.Capacity}";
        RequireReachable("keys", (long)owner.Capacity * Spec.KeyValueHeads * Spec.HeadDim, capacity);
        RequireReachable("values", (long)owner.Capacity * Spec.KeyValueHeads * Spec.ValueDim, capacity);
        long rows = (long)owner.Slots * owner.Capacity * Spec.KeyValueHeads * sizeof(float);
        _keys = new IlgpuBuffer(Backend, checked(rows * Spec.HeadDim));
        _values = new IlgpuBuffer(Backend, checked(rows * Spec.ValueDim));
        (_pendingKeys, _pendingValues, _pendingCapacity) = (Pending(1, Spec.HeadDim), Pending(1, Spec.ValueDim), 1);
    }

    public StepTables Tables => ((IlgpuState)Owner).Tables;

    public SoftmaxMemory Memory => new(Spec, _keys.View.Cast<float>(), _values.View.Cast<float>(), _pendingKeys.View.Cast<float>(), _pendingValues.View.Cast<float>(), Owner.Capacity, _pendingCapacity);

    public override ArrayView<float> Field(int slot, StateField field, int rows)
    {
        long width = (long)field.Heads * field.Width;
        return (field.Name == "key" ? _keys : _values).View.Cast<float>().SubView(slot * (long)Owner.Capacity * width, rows * width);
    }

    public override IEnumerable<(StateField Field, int Rows)> Parts(int length) => Attentions.Find(Spec.Attention)!.Fields(Spec).Select(field => (field, length));

    public override void Append(Step step, StepView view, CommitTables commit) => Backend.SoftmaxAppend(this, step, view, commit);

    public override void Reserve(int nodes)
    {
        if (nodes <= _pendingCapacity) return;
        int capacity = Math.Min(TokenTree.MaxNodes, Math.Max(nodes, 2 * _pendingCapacity));
        string trees = $" with room for trees of {capacity} nodes";
        RequireReachable("pending keys", (long)capacity * Spec.KeyValueHeads * Spec.HeadDim, trees);
        RequireReachable("pending values", (long)capacity * Spec.KeyValueHeads * Spec.ValueDim, trees);
        IlgpuBuffer keys = Pending(capacity, Spec.HeadDim), values;
        try
        {
            values = Pending(capacity, Spec.ValueDim);
        }
        catch
        {
            keys.Dispose();
            throw;
        }

        Move(_pendingKeys, keys, capacity, Spec.HeadDim);
        Move(_pendingValues, values, capacity, Spec.ValueDim);
        Backend.Wait();
        _pendingKeys.Dispose();
        _pendingValues.Dispose();
        (_pendingKeys, _pendingValues, _pendingCapacity) = (keys, values, capacity);
    }

    public override void Reset(int slot) { }

    public override void Dispose()
    {
        foreach (IlgpuBuffer buffer in (ReadOnlySpan<IlgpuBuffer>)[_keys, _values, _pendingKeys, _pendingValues]) buffer.Dispose();
    }

    /// <summary>Rows of verified trees, <c>[slots, capacity, keyValueHeads, dim]</c>.</summary>
    private IlgpuBuffer Pending(int capacity, int dim) => new(Backend, checked((long)Owner.Slots * capacity * Spec.KeyValueHeads * dim * sizeof(float)));

    private void Move(IlgpuBuffer from, IlgpuBuffer to, int capacity, int dim)
    {
        long row = (long)Spec.KeyValueHeads * dim, count = _pendingCapacity * row;
        for (int slot = 0; slot < Owner.Slots; slot++)
            Backend.Copy(from.View.Cast<float>().SubView(slot * count, count), to.View.Cast<float>().SubView(slot * capacity * row, count));
    }
}
