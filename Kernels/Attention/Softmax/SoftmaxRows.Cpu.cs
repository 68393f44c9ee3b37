namespace Treeline.Kernels;

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Stores an entry's keys and values of one head.</summary>
    public abstract void SoftmaxStore(in SoftmaxCall call, StepEntry entry, int head);

    /// <summary>Answers a chunk of an entry's queries, those of the query heads that read one key/value head.</summary>
    public abstract void SoftmaxAnswer(in SoftmaxCall call, StepEntry entry, int head, int first, float* scratch);
}

/// <remarks>
/// A row sees the positions up to its own: from the pages, and, in a tree, from its own path past the committed ones.
/// Blocks of 64 absolute positions: all scores of a block, then its maximum, then one update. Parts of 1,024 positions have sums of their own, merged in order.
/// A position decides a key's block and lane, so a tree's branches cannot.
/// </remarks>
internal sealed unsafe partial class CpuKernels<S, V>
{
    private const int Block = SoftmaxLayer.Page, BlocksOfPart = 1024 / Block;

    public override void SoftmaxStore(in SoftmaxCall call, StepEntry entry, int head)
    {
        SoftmaxLayer layer = call.Layer;
        int keyDim = call.Spec.HeadDim, valueDim = call.Spec.ValueDim, length = layer.Owner.Length(entry.Slot);
        float* key = stackalloc float[call.QueryStride];
        for (int i = 0; i < entry.Count; i++)
        {
            int page = (length + i) / Block, row = (length + i) % Block;
            float* keys = entry.Moves ? layer.Keys(entry.Slot, head, page) + row : layer.Pending.Keys(entry.Slot, head) + i;
            float* value = entry.Moves ? layer.Values(entry.Slot, head, page) + (nint)row * layer.ValueStride : layer.Pending.Values(entry.Slot, head) + (nint)i * layer.ValueStride;
            nint stride = entry.Moves ? Block : layer.Pending.Stride(entry.Slot);
            Widen(call.Key.Type, call.Key.At(entry.Offset + i, (nint)head * keyDim), keyDim, key);
            for (int d = 0; d < keyDim; d++) keys[d * stride] = key[d];
            Widen(call.Value.Type, call.Value.At(entry.Offset + i, (nint)head * valueDim), valueDim, value);
            for (int e = valueDim; e < layer.ValueStride; e++) value[e] = 0;
        }
    }

    public override void SoftmaxAnswer(in SoftmaxCall call, StepEntry entry, int head, int first, float* scratch)
    {
        var chunk = new SoftmaxChunk(call, entry, head, first);
        var work = new SoftmaxScratch(call, scratch);
        int dim = call.Spec.HeadDim, rows = chunk.Tokens * call.Heads, last = 0;
        for (int row = 0; row < rows; row++)
        {
            int token = first + row / call.Heads;
            float* query = work.Query + (nint)row * call.QueryStride;
            Widen(call.Query.Type, call.Query.At(entry.Offset + token, ((nint)head * call.Heads + row % call.Heads) * dim), dim, query);
            for (int d = 0; d < dim; d++) query[d] *= call.Scale;
            last = Math.Max(last, chunk.Position(token));
        }

        if (!entry.Moves) ScoreNodes(call, work, chunk, rows);
        for (int block = 0; block <= last / Block; block++)
        {
            if (block % BlocksOfPart == 0) BeginPart(call, work, rows, block);
            AnswerBlock(call, work, chunk, rows, block);
            if (block % BlocksOfPart == BlocksOfPart - 1 || block == last / Block) EndPart(call, work, chunk, rows, block / BlocksOfPart);
        }

        for (int row = 0; row < rows; row++)
        {
            float* sums = work.Merged.ValuesOf(row);
            DivideBy(sums, call.Spec.ValueDim, work.Merged.Weights[row]);
            nint bytes = (nint)call.Spec.ValueDim * sizeof(float);
            Buffer.MemoryCopy(sums, call.Output(entry.Offset + first + row / call.Heads, head * call.Heads + row % call.Heads), bytes, bytes);
        }
    }

    /// <summary>Scores of a chunk against its tree, 16 nodes at a time, where a node of the chunk has one of them on its path.</summary>
    private static void ScoreNodes(in SoftmaxCall call, in SoftmaxScratch work, in SoftmaxChunk chunk, int rows)
    {
        int stride = call.Layer.Pending.Stride(chunk.Slot);
        float* keys = call.Layer.Pending.Keys(chunk.Slot, chunk.Head);
        for (int column = 0; column < chunk.Tree.Count; column += 16)
            if (chunk.AnyOnPath(column))
                Product(work.Query, call.QueryStride, keys + column, stride, default(RowsInOrder), work.NodeScores + column, call.NodeStride, rows, 16, call.Spec.HeadDim, add: false);
    }

    private static void AnswerBlock(in SoftmaxCall call, in SoftmaxScratch work, in SoftmaxChunk chunk, int rows, int block)
    {
        SoftmaxLayer layer = call.Layer;
        int start = block * Block, heads = call.Heads, stride = layer.ValueStride;
        int stored = Math.Clamp(chunk.Stored - start, 0, Block);      // rows that lie in the page
        float* values = stored > 0 ? layer.Values(chunk.Slot, chunk.Head, block) : null;
        if (stored > 0)
            Product(work.Query, call.QueryStride, layer.Keys(chunk.Slot, chunk.Head, block), Block, default(RowsInOrder), work.Scores, Block, rows, CpuLayer.Padded(stored), call.Spec.HeadDim, add: false);

        for (int t = 0; t < chunk.Tokens; t++)
        {
            int visible = chunk.Visible(t, start);
            if (visible == 0) continue;
            if (visible > stored) chunk.PathIn(t, start + stored, visible - stored, work.Path);
            for (int row = t * heads; row < (t + 1) * heads; row++)
            {
                float* scores = work.Scores + (nint)row * Block;
                float* nodeScores = work.NodeScores + (nint)row * call.NodeStride;
                for (int i = stored; i < visible; i++) scores[i] = nodeScores[work.Path[i - stored]];
                Exponentiate(scores, visible, ref work.Part.Largest[row], ref work.Part.Weights[row], work.Part.ValuesOf(row), stride);
            }
        }

        // Four rows share the stored keys that the first of them sees; each goes on alone over the rest of its own, then over its path.
        for (int row = 0; row < rows; row += 4)
        {
            int together = Math.Min(4, rows - row), shared = Math.Min(stored, chunk.LeastVisible(row / heads, (row + together - 1) / heads, start));
            float* weights = work.Scores + (nint)row * Block;
            Product(weights, Block, values, stride, default(RowsInOrder), work.Part.ValuesOf(row), stride, together, stride, shared, add: true);
            for (int r = 0; r < together; r++)
            {
                int more = Math.Min(stored, chunk.Visible((row + r) / heads, start)) - shared;
                if (more > 0)
                    Product(weights + (nint)r * Block + shared, Block, values + (nint)shared * stride, stride, default(RowsInOrder), work.Part.ValuesOf(row + r), stride, 1, stride, more, add: true);
            }
        }

        for (int t = 0; t < chunk.Tokens; t++)
        {
            int path = chunk.Visible(t, start) - stored;
            if (path <= 0 || chunk.Moves) continue;
            chunk.PathIn(t, start + stored, path, work.Path);
            int row = t * heads;
            Product(work.Scores + (nint)row * Block + stored, Block, layer.Pending.Values(chunk.Slot, chunk.Head), stride, new ListedRows(work.Path), work.Part.ValuesOf(row), stride, heads, stride, path, add: true);
        }
    }

    /// <summary>One update: the block's maximum, its scores' exponentials (0 past the visible ones) and their sum; what was summed before is scaled to the new maximum.</summary>
    private static void Exponentiate(float* scores, int visible, ref float largest, ref float weights, float* sums, int stride)
    {
        const float None = float.NegativeInfinity;
        float* lanes = stackalloc float[16];
        for (int i = visible; i < Block; i++) scores[i] = None;
        V most = S.Broadcast(None);
        for (int i = 0; i < Block; i += S.Width) most = S.Max(most, S.Load(scores + i));
        S.Store(lanes, most);
        float next = largest;
        for (int i = 0; i < S.Width; i++) next = MathF.Max(next, lanes[i]);
        if (next > largest)
        {
            V shrink = S.Exp(S.Broadcast(largest - next));
            S.Store(lanes, shrink);
            weights *= lanes[0];
            for (int e = 0; e < stride; e += S.Width) S.Store(sums + e, S.Multiply(S.Load(sums + e), shrink));
        }

        largest = next;
        V shift = S.Broadcast(next);
        for (int lane = 0; lane < 16; lane += S.Width)
        {
            V sum = S.Broadcast(0);
            for (int i = lane; i < Block; i += 16)
            {
                V weight = S.Exp(S.Subtract(S.Load(scores + i), shift));
                S.Store(scores + i, weight);
                sum = S.Add(sum, weight);
            }

            S.Store(lanes + lane, sum);
        }

        weights += SumOf16(lanes);
    }

    private static void BeginPart(in SoftmaxCall call, in SoftmaxScratch work, int rows, int block)
    {
        for (int row = 0; row < rows; row++)
        {
            work.Part.Largest[row] = float.NegativeInfinity;
            work.Part.Weights[row] = 0;
        }

        Clear(work.Part.Values, (nint)rows * call.Layer.ValueStride);
    }

    /// <summary>Merges a part's sums into those of the parts before it, for the rows that see something of it.</summary>
    private static void EndPart(in SoftmaxCall call, in SoftmaxScratch work, in SoftmaxChunk chunk, int rows, int part)
    {
        int stride = call.Layer.ValueStride;
        for (int row = 0; row < rows; row++)
        {
            if (chunk.Visible(row / call.Heads, part * BlocksOfPart * Block) == 0) continue;
            float* sums = work.Merged.ValuesOf(row), more = work.Part.ValuesOf(row);
            float largest = work.Part.Largest[row], weights = work.Part.Weights[row];
            if (part == 0)
            {
                work.Merged.Largest[row] = largest;
                work.Merged.Weights[row] = weights;
                Buffer.MemoryCopy(more, sums, (nint)stride * sizeof(float), (nint)stride * sizeof(float));
                continue;
            }

            float next = MathF.Max(work.Merged.Largest[row], largest);
            V shrink = S.Exp(S.Broadcast(work.Merged.Largest[row] - next)), shrinkMore = S.Exp(S.Broadcast(largest - next));
            work.Merged.Largest[row] = next;
            work.Merged.Weights[row] = Simd.MultiplyAdd(weights, First(shrinkMore), work.Merged.Weights[row] * First(shrink));
            for (int e = 0; e < stride; e += S.Width)
                S.Store(sums + e, S.MultiplyAdd(S.Load(more + e), shrinkMore, S.Multiply(S.Load(sums + e), shrink)));
        }
    }

    private static float First(V x)
    {
        float* lanes = stackalloc float[16];
        S.Store(lanes, x);
        return lanes[0];
    }
}

/// <summary>Consecutive tokens of an entry, as one key/value head answers them together.</summary>
internal readonly struct SoftmaxChunk(in SoftmaxCall call, StepEntry entry, int head, int first)
{
    public readonly TokenTree Tree = entry.Tree;
    public readonly bool Moves = entry.Moves;
    public readonly int Slot = entry.Slot;
    public readonly int Head = head;
    public readonly int Tokens = Math.Min(call.ChunkTokens, entry.Count - first);

    /// <summary>Positions that lie in the pages: the committed ones, and the entry's own where it moves.</summary>
    public readonly int Stored = call.Layer.Owner.Length(entry.Slot) + (entry.Moves ? entry.Count : 0);

    private readonly int _first = first;
    private readonly int _length = call.Layer.Owner.Length(entry.Slot);

    /// <summary>Position of a token of the entry.</summary>
    public int Position(int token) => _length + Tree.Depth(token);

    /// <summary>How many positions from a block's or part's start on the chunk's t-th token sees, at most a block.</summary>
    public int Visible(int t, int start) => Math.Clamp(Position(_first + t) + 1 - start, 0, SoftmaxLayer.Page);

    /// <summary>The least of them over some tokens.</summary>
    public int LeastVisible(int from, int to, int start)
    {
        int least = SoftmaxLayer.Page;
        for (int t = from; t <= to; t++) least = Math.Min(least, Visible(t, start));
        return least;
    }

    /// <summary>The nodes at <paramref name="count"/> positions from <paramref name="position"/> on, on the path of the chunk's t-th token.</summary>
    public unsafe void PathIn(int t, int position, int count, int* path)
    {
        int node = _first + t;
        for (int at = Position(node); at >= position; at--, node = Tree.Parent(node))
            if (at < position + count) path[at - position] = node;
    }

    /// <summary>True where one of 16 nodes lies on the path of a node of the chunk.</summary>
    public bool AnyOnPath(int column)
    {
        for (int node = _first; node < _first + Tokens; node++)
            if (AttentionWork.IsAnyOnPath(Tree, node, column)) return true;
        return false;
    }
}
