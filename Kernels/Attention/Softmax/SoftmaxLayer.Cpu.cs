namespace Treeline.Kernels;

/// <summary>One layer of softmax attention: each slot's keys and values in pages of 64 positions, which forks share until one of them writes.</summary>
/// <remarks>A page holds, for each key/value head, the keys transposed <c>[headDim, 64]</c> (lanes run over positions) and the values <c>[64, valueStride]</c>.</remarks>
internal sealed unsafe class SoftmaxLayer : CpuLayer
{
    /// <summary>Positions of a page, and of a block of the online softmax.</summary>
    public const int Page = 64;

    private readonly PagePool _pool;
    private readonly nint[][] _pages;
    private readonly int[] _counts;
    private readonly int _heads;
    private readonly nint _keyFloats;
    private readonly nint _headFloats;

    public SoftmaxLayer(CpuBackend backend, AttentionState owner, int index) : base(backend, owner, index)
    {
        _heads = Spec.KeyValueHeads;
        ValueStride = Padded(Spec.ValueDim);
        _keyFloats = (nint)Spec.HeadDim * Page;
        _headFloats = _keyFloats + (nint)Page * ValueStride;
        _pool = new PagePool(_heads * _headFloats);
        Pending = new PendingRows(backend, owner.Slots, _heads, Spec.HeadDim, ValueStride);
        _pages = new nint[owner.Slots][];
        for (int slot = 0; slot < owner.Slots; slot++) _pages[slot] = new nint[PagesOf(Math.Min(owner.Capacity, 1 << 16))];
        _counts = new int[owner.Slots];
    }

    /// <summary>Distance of the rows of values.</summary>
    public int ValueStride { get; }

    /// <summary>Keys and values of verified trees.</summary>
    public PendingRows Pending { get; }

    /// <summary>A page's keys of one head, transposed.</summary>
    public float* Keys(int slot, int head, int page) => (float*)_pages[slot][page] + head * _headFloats;

    /// <summary>A page's values of one head.</summary>
    public float* Values(int slot, int head, int page) => Keys(slot, head, page) + _keyFloats;

    public override long Bytes(int length) => (long)PagesOf(length) * _pool.PageBytes;

    public override void Reserve(in StepEntry entry, int length)
    {
        MakeWritable(entry.Slot, length, length + entry.Tree.Levels);
        if (!entry.Moves) Pending.Reserve(entry.Slot, entry.Count);
    }

    /// <summary>Gives a slot pages of its own for the positions that will be written; a fork may have come between, so writers ask again.</summary>
    public void MakeWritable(int slot, int from, int to)
    {
        if (from == to) return;
        int needed = PagesOf(to);
        if (_pages[slot].Length < needed) Array.Resize(ref _pages[slot], Math.Max(needed, 2 * _pages[slot].Length));
        nint[] pages = _pages[slot];
        for (; _counts[slot] < needed; _counts[slot]++) pages[_counts[slot]] = (nint)_pool.Take();
        for (int i = from / Page; i < needed; i++)
        {
            var page = (float*)pages[i];
            if (!PagePool.IsShared(page)) continue;
            float* own = _pool.Take();
            Buffer.MemoryCopy(page, own, _pool.PageBytes, _pool.PageBytes);
            _pool.Release(page);
            pages[i] = (nint)own;
        }
    }

    public override void Fork(int from, int to, int length)
    {
        Reset(to);
        int count = PagesOf(length);
        if (_pages[to].Length < count) Array.Resize(ref _pages[to], _pages[from].Length);
        for (int i = 0; i < count; i++)
        {
            PagePool.Share((float*)_pages[from][i]);
            _pages[to][i] = _pages[from][i];
        }

        _counts[to] = count;
    }

    public override void Reset(int slot) => Rewind(slot, 0);

    public override void Rewind(int slot, int length)
    {
        for (int kept = PagesOf(length); _counts[slot] > kept;) _pool.Release((float*)_pages[slot][--_counts[slot]]);
    }

    public override void Restore(int slot, int length) => MakeWritable(slot, 0, length);

    public override void Append(int slot, int length, int* path, int count)
    {
        MakeWritable(slot, length, length + count);
        nint bytes = (nint)ValueStride * sizeof(float);
        for (int head = 0; head < _heads; head++)
        {
            float* pendingKeys = Pending.Keys(slot, head), pendingValues = Pending.Values(slot, head);
            for (int i = 0; i < count; i++)
            {
                int page = (length + i) / Page, row = (length + i) % Page;
                float* keys = Keys(slot, head, page) + row;
                for (int d = 0; d < Spec.HeadDim; d++) keys[(nint)d * Page] = pendingKeys[(nint)d * Pending.Stride(slot) + path[i]];
                Buffer.MemoryCopy(pendingValues + (nint)path[i] * ValueStride, Values(slot, head, page) + (nint)row * ValueStride, bytes, bytes);
            }
        }
    }

    public override void Read(int slot, StateField field, int length, float* to) => Copy(slot, field, length, to, write: false);

    public override void Write(int slot, StateField field, int length, float* from) => Copy(slot, field, length, from, write: true);

    public override void Dispose()
    {
        _pool.Dispose();
        Pending.Dispose();
    }

    private static int PagesOf(int length) => (int)(((long)length + Page - 1) / Page);

    /// <summary>Copies a field between the pages and its logical place <c>[length, heads, width]</c>.</summary>
    private void Copy(int slot, StateField field, int length, float* logical, bool write)
    {
        nint step = field.Name == "key" ? Page : 1;
        for (int position = 0; position < length; position++)
        {
            for (int head = 0; head < _heads; head++, logical += field.Width)
            {
                int page = position / Page, row = position % Page;
                float* here = field.Name == "key" ? Keys(slot, head, page) + row : Values(slot, head, page) + (nint)row * ValueStride;
                for (int i = 0; i < field.Width; i++)
                {
                    if (write) here[i * step] = logical[i];
                    else logical[i] = here[i * step];
                }
            }
        }
    }
}
