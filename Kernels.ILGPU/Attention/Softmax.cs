using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int SoftmaxBlock = 64;                    // absolute positions that share one update of the maximum
    private const int SoftmaxPart = 1024;                   // absolute positions that one group of threads goes through
    private const long MostSoftmaxParts = 16L << 20;        // numbers of such parts that one launch may leave in scratch

    private Action<AcceleratorStream, Index1D, Rows, Rows, StepView, SoftmaxMemory>? _softmaxStore;
    private Action<AcceleratorStream, KernelConfig, Rows, StepView, SoftmaxMemory, ArrayView<float>, int>? _softmaxPart;
    private Action<AcceleratorStream, Index1D, Rows, StepView, SoftmaxMemory, ArrayView<float>, int, int>? _softmaxMerge;
    private Action<AcceleratorStream, Index1D, StepView, CommitView, SoftmaxMemory>? _softmaxAppend;
    private DeviceArray<float>? _softmaxParts;

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
        int parts = Parts(LongestPath(step, state.Owner)), threads = Math.Min(SoftmaxBlock, Accelerator.MaxNumThreadsPerGroup);
        ArrayView<float> scratch = SoftmaxReserve(memory, step);
        int atOnce = (int)Math.Min(step.Tokens, scratch.Length / (spec.QueryHeads * shape.Part(1, parts, 0)));
        Rows query = Floats(inputs.Query, 0), to = Output(output);
        for (int first = 0; first < step.Tokens; first += atOnce)
        {
            int rows = Math.Min(atOnce, step.Tokens - first) * spec.QueryHeads;
            Load(ref _softmaxPart, SoftmaxPartKernel)(Stream, Groups(rows, parts, 1, threads), query, view, shape, scratch, first);
            Load(ref _softmaxMerge, SoftmaxMergeKernel)(Stream, Threads((long)rows * spec.ValueDim), to, view, shape, scratch, first, parts);
        }
    }

    /// <summary>Takes the scratch memory of a step: for one token at the state's capacity at least, so that it does not grow with the sequence; a shorter one leaves room for more tokens in a launch.</summary>
    internal ArrayView<float> SoftmaxReserve(IlgpuSoftmaxLayer layer, Step step)
    {
        long perToken = layer.Spec.QueryHeads * layer.Memory.Part(1, Parts(layer.Owner.Capacity), 0);
        return (_softmaxParts ??= new DeviceArray<float>(this)).Reserve(Math.Max(perToken, Math.Min(MostSoftmaxParts, step.Tokens * perToken)));
    }

    /// <summary>Parts of so many positions.</summary>
    private static int Parts(int positions) => (positions + SoftmaxPart - 1) / SoftmaxPart;

    /// <summary>Positions of the longest path of a step, the committed ones included.</summary>
    private static int LongestPath(Step step, AttentionState state)
    {
        int longest = 1;
        for (int e = 0; e < step.Entries; e++) longest = Math.Max(longest, state.Length(step[e].Slot) + step[e].Tree.Levels);
        return longest;
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

    // A group a token, query head and 1,024 positions. Blocks of 64: all scored, one update of the maximum, then every thread adds the rows in order to the channels it owns.
    private static void SoftmaxPartKernel(Rows query, StepView step, SoftmaxMemory memory, ArrayView<float> parts, int firstToken)
    {
        ArrayView<float> scores = SharedMemory.Allocate<float>(SoftmaxBlock);
        ArrayView<long> rows = SharedMemory.Allocate<long>(SoftmaxBlock);
        int token = firstToken + Grid.IdxX / memory.QueryHeads, head = Grid.IdxX % memory.QueryHeads, thread = Group.IdxX;
        int entry = step.Entry(token), slot = step.Slot(entry), length = step.Length(entry), moves = step.Moves(entry);
        int kv = head / (memory.QueryHeads / memory.KeyValueHeads), fromQuery = head * memory.HeadDim, start = Grid.IdxY * SoftmaxPart;
        int end = XMath.Min(length + step.Depth(token) + 1, start + SoftmaxPart);
        long part = memory.Part(Grid.IdxX, Grid.DimY, Grid.IdxY);
        float largest = float.NegativeInfinity, sum = 0;
        for (int e = thread; e < memory.ValueDim; e += Group.DimX) parts[part + e] = 0;

        for (int block = start; block < end; block += SoftmaxBlock)
        {
            int count = XMath.Min(SoftmaxBlock, end - block);
            for (int j = thread; j < count; j += Group.DimX)
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
                scores[j] = dot * memory.Scale;
                rows[j] = cached ? row : ~row;
            }

            Group.Barrier();
            float before = largest;
            for (int j = 0; j < count; j++) largest = RowGroup.Larger(largest, scores[j]);
            float shrink = XMath.Exp(before - largest);
            Group.Barrier();                                // all have seen the scores
            for (int j = thread; j < count; j += Group.DimX) scores[j] = XMath.Exp(scores[j] - largest);
            Group.Barrier();
            sum *= shrink;
            for (int j = 0; j < count; j++) sum += scores[j];
            for (int e = thread; e < memory.ValueDim; e += Group.DimX)
            {
                float mixed = parts[part + e] * shrink;
                for (int j = 0; j < count; j++)
                {
                    long row = rows[j];
                    float value = row >= 0 ? memory.Values[(row * memory.KeyValueHeads + kv) * memory.ValueDim + e] : memory.PendingValues[(~row * memory.KeyValueHeads + kv) * memory.ValueDim + e];
                    mixed = Fused.MultiplyAdd(scores[j], value, mixed);
                }

                parts[part + e] = mixed;
            }

            Group.Barrier();                                // before the next block overwrites the scores
        }

        if (thread != 0) return;
        parts[part + memory.ValueDim] = largest;
        parts[part + memory.ValueDim + 1] = sum;
    }

    // A thread a channel: the parts of its token's path, merged in order.
    private static void SoftmaxMergeKernel(Index1D index, Rows output, StepView step, SoftmaxMemory memory, ArrayView<float> parts, int firstToken, int most)
    {
        int row = index / memory.ValueDim, e = index % memory.ValueDim, token = firstToken + row / memory.QueryHeads, head = row % memory.QueryHeads;
        int count = (step.Length(step.Entry(token)) + step.Depth(token)) / SoftmaxPart + 1;
        long at = memory.Part(row, most, 0);
        float mixed = parts[at + e], largest = parts[at + memory.ValueDim], sum = parts[at + memory.ValueDim + 1];
        for (int i = 1; i < count; i++)
        {
            at = memory.Part(row, most, i);
            float other = parts[at + memory.ValueDim], larger = RowGroup.Larger(largest, other), shrink = XMath.Exp(largest - larger), grow = XMath.Exp(other - larger);
            mixed = Fused.MultiplyAdd(grow, parts[at + e], mixed * shrink);
            sum = Fused.MultiplyAdd(grow, parts[at + memory.ValueDim + 1], sum * shrink);
            largest = larger;
        }

        output[token, head * memory.ValueDim + e] = mixed / sum;
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

    /// <summary>Where a part of a row (token and query head) begins in scratch: its weighted values, its largest score, the sum of its weights.</summary>
    public long Part(int row, int parts, int part) => ((long)row * parts + part) * (ValueDim + 2);

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

    public override void Reserve(Step step) => Backend.SoftmaxReserve(this, step);

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
