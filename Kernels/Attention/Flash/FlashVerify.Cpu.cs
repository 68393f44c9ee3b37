namespace Treeline.Kernels;

internal sealed unsafe partial class CpuKernels<S, V>
{
    public override void FlashVerify(in FlashCall call, StepEntry entry, int head, float* scratch)
    {
        FlashLayer layer = call.Layer;
        var verify = new FlashTree(call, entry, head, new FlashScratch(call, scratch));
        FlashScratch work = verify.Work;
        LoadTaps(call, head, work.Taps);
        for (int i = 0; i < entry.Count; i++) work.HasChild[i] = 0;
        for (int i = 0; i < entry.Count; i++)
        {
            if (layer.HasKeys) LoadKey(call, entry.Offset + i, head, work.Row, verify.PendingKeys, verify.PendingStride, i);
            LoadValue(call, entry.Offset + i, head, verify.PendingValues + (nint)i * layer.ValueStride);
            if (entry.Tree.Parent(i) is var parent && parent >= 0) work.HasChild[parent] = 1;
        }

        int room = call.Spec.GroupSize - verify.Tail;       // levels of the tree that still belong to the current group
        float* state = call.Spec.Global && verify.Length >= call.Spec.GroupSize ? layer.State(entry.Slot, head) : null;
        AnswerLevels(call, verify, -1, 0, room, state);
        if (!call.Spec.Global)
        {
            for (int level = room; level < entry.Tree.Levels; level += call.Spec.GroupSize) AnswerLevels(call, verify, -1, level, level + call.Spec.GroupSize, null);
        }
        else if (entry.Tree.Levels > room)
        {
            for (int i = 0; i < entry.Count; i++)
                if (entry.Tree.Depth(i) == room - 1 && work.HasChild[i] != 0) Cross(call, verify, i, layer.State(entry.Slot, head), 0);
        }
    }

    /// <summary>
    /// Node <paramref name="last"/> completes a group and has descendants: builds the state that they see, answers those of the next group,
    /// and goes on from the ones that complete that group too.
    /// </summary>
    private void Cross(in FlashCall call, in FlashTree verify, int last, float* before, int crossing)
    {
        AttentionSpec spec = call.Spec;
        FlashLayer layer = call.Layer;
        FlashScratch work = verify.Work;
        int stride = layer.ValueStride;
        nint size = (nint)spec.HeadDim * stride;
        float* state = work.States + crossing * size;
        Buffer.MemoryCopy(before, state, size * sizeof(float), size * sizeof(float));
        int inTail = crossing == 0 ? verify.Tail : 0, count = spec.GroupSize - inTail;
        if (inTail > 0)
            Product(layer.Keys(verify.Slot, verify.Head), layer.KeyStride, layer.Values(verify.Slot, verify.Head), stride, default(RowsInOrder), state, stride, spec.HeadDim, stride, inTail, add: true);
        verify.PathUp(last, count, work.Path);
        for (int i = 0; i < count; i++)
            for (int d = 0; d < spec.HeadDim; d++) work.PathKeys[(nint)d * count + i] = verify.PendingKeys[(nint)d * verify.PendingStride + work.Path[i]];
        Product(work.PathKeys, count, verify.PendingValues, stride, new ListedRows(work.Path), state, stride, spec.HeadDim, stride, count, add: true);

        int level = verify.Tree.Depth(last) + 1, next = level + spec.GroupSize;
        AnswerLevels(call, verify, last, level, next, state);
        if (verify.Tree.Levels <= next) return;
        for (int i = last + 1; i < verify.Tree.Count; i++)
            if (verify.Tree.Depth(i) == next - 1 && work.HasChild[i] != 0 && verify.Tree.IsOnPath(last, i)) Cross(call, verify, i, state, crossing + 1);
    }

    /// <summary>Answers the nodes of the levels of one group, those below a node (or all of them), a chunk at a time.</summary>
    private void AnswerLevels(in FlashCall call, in FlashTree verify, int below, int fromLevel, int toLevel, float* state)
    {
        int* chunk = verify.Work.Chunk;
        int count = 0;
        for (int i = below + 1; i < verify.Tree.Count; i++)
        {
            int level = verify.Tree.Depth(i);
            if (level < fromLevel || level >= toLevel || (below >= 0 && !verify.Tree.IsOnPath(below, i))) continue;
            chunk[count++] = i;
            if (count < call.ChunkTokens) continue;
            AnswerNodes(call, verify, count, fromLevel, state);
            count = 0;
        }

        if (count > 0) AnswerNodes(call, verify, count, fromLevel, state);
    }

    /// <summary>Answers a chunk of nodes of one group, which begins at <paramref name="fromLevel"/> of the tree (0: in the tail or there).</summary>
    private void AnswerNodes(in FlashCall call, in FlashTree verify, int nodes, int fromLevel, float* state)
    {
        AttentionSpec spec = call.Spec;
        FlashLayer layer = call.Layer;
        FlashScratch work = verify.Work;
        int heads = call.Heads, rows = nodes * heads, stride = layer.ValueStride;
        if (layer.HasKeys)
            for (int n = 0; n < nodes; n++) LoadQueries(call, verify.Offset + work.Chunk[n], verify.Head, work.Query + (nint)n * heads * call.QueryStride);

        if (spec.Local != LocalKind.None) SumPaths(call, verify, nodes, fromLevel);
        else Clear(work.Local, (nint)rows * stride);

        if (state != null) Product(work.Query, call.QueryStride, state, stride, default(RowsInOrder), work.Global, stride, rows, stride, spec.HeadDim, add: false);
        else Clear(work.Global, (nint)rows * stride);

        for (int n = 0; n < nodes; n++)
        {
            int node = work.Chunk[n];
            nint first = (nint)n * heads * stride;
            if (spec.ConvTaps > 0) ConvolveUp(call, verify, node, work.Conv + first);
            for (int r = 0; r < heads; r++)
            {
                nint at = first + (nint)r * stride;
                Join(call, work.Local + at, work.Global + at, work.Conv + at, verify.PendingValues + (nint)node * stride, call.Output(verify.Offset + node, verify.Head * heads + r));
            }
        }
    }

    /// <summary>The local sums of a chunk of nodes: the group's committed rows together, then each node's own path.</summary>
    private static void SumPaths(in FlashCall call, in FlashTree verify, int nodes, int fromLevel)
    {
        AttentionSpec spec = call.Spec;
        FlashLayer layer = call.Layer;
        FlashScratch work = verify.Work;
        int heads = call.Heads, rows = nodes * heads, stride = layer.ValueStride, tail = fromLevel == 0 ? verify.Tail : 0;
        if (tail > 0)
        {
            int columns = CpuLayer.Padded(tail);
            Product(work.Query, call.QueryStride, layer.Keys(verify.Slot, verify.Head), layer.KeyStride, default(RowsInOrder), work.Scores, call.ScoreStride, rows, columns, spec.HeadDim, add: false);
            Weigh(spec.Local, work.Scores, call.ScoreStride, rows, columns);
        }

        Product(work.Scores, call.ScoreStride, layer.Values(verify.Slot, verify.Head), stride, default(RowsInOrder), work.Local, stride, rows, stride, tail, add: false);

        // Scores against 16 nodes at a time, where a node of the chunk has one of them on its path.
        for (int column = 0; column < verify.Tree.Count; column += 16)
        {
            if (!verify.AnyOnPath(nodes, column)) continue;
            float* scores = work.Scores + column;
            Product(work.Query, call.QueryStride, verify.PendingKeys + column, verify.PendingStride, default(RowsInOrder), scores, call.ScoreStride, rows, 16, spec.HeadDim, add: false);
            Weigh(spec.Local, scores, call.ScoreStride, rows, 16);
        }

        for (int n = 0; n < nodes; n++)
        {
            int node = work.Chunk[n], count = verify.Tree.Depth(node) + 1 - fromLevel;
            verify.PathUp(node, count, work.Path);
            for (int r = 0; r < heads; r++)
            {
                float* weights = work.Scores + (nint)(n * heads + r) * call.ScoreStride;
                for (int i = 0; i < count; i++) work.PathWeights[(nint)r * count + i] = weights[work.Path[i]];
            }

            Product(work.PathWeights, count, verify.PendingValues, stride, new ListedRows(work.Path), work.Local + (nint)n * heads * stride, stride, heads, stride, count, add: true);
        }
    }

    /// <summary>The convolution from a node up its path, then on into the committed values.</summary>
    private static void ConvolveUp(in FlashCall call, in FlashTree verify, int node, float* sums)
    {
        FlashScratch work = verify.Work;
        int taps = call.Spec.ConvTaps, heads = call.Heads, stride = call.Layer.ValueStride, inTree = 0;
        for (int at = node; at >= 0 && inTree < taps; at = verify.Tree.Parent(at)) work.Path[inTree++] = at;
        Product(work.Taps, taps, verify.PendingValues, stride, new ListedRows(work.Path), sums, stride, heads, stride, inTree, add: false);
        float* newest = call.Layer.Values(verify.Slot, verify.Head) + (nint)(verify.Tail - 1) * stride;
        Product(work.Taps + inTree, taps, newest, -stride, default(RowsInOrder), sums, stride, heads, stride, taps - inTree, add: true);
    }
}

/// <summary>A tree under verification, as one key/value head sees it.</summary>
internal readonly unsafe struct FlashTree(in FlashCall call, StepEntry entry, int head, FlashScratch work)
{
    public readonly TokenTree Tree = entry.Tree;
    public readonly int Slot = entry.Slot;
    public readonly int Offset = entry.Offset;
    public readonly int Head = head;
    public readonly FlashScratch Work = work;

    /// <summary>Committed tokens.</summary>
    public readonly int Length = call.Layer.Owner.Length(entry.Slot);

    /// <summary>Those of them that belong to the current group.</summary>
    public readonly int Tail = call.Layer.Owner.Length(entry.Slot) % call.Spec.GroupSize;

    public readonly float* PendingKeys = call.Layer.Pending.Keys(entry.Slot, head);
    public readonly float* PendingValues = call.Layer.Pending.Values(entry.Slot, head);
    public readonly int PendingStride = call.Layer.Pending.Stride(entry.Slot);

    /// <summary>The last nodes of the path down to a node, in the order of their positions.</summary>
    public void PathUp(int node, int count, int* path)
    {
        for (int i = count - 1; i >= 0; i--, node = Tree.Parent(node)) path[i] = node;
    }

    /// <summary>True where one of 16 nodes lies on the path of a node of the chunk.</summary>
    public bool AnyOnPath(int nodes, int column)
    {
        for (int n = 0; n < nodes; n++)
        {
            int node = Work.Chunk[n];
            if (AttentionWork.IsAnyOnPath(Tree, node, column)) return true;
        }

        return false;
    }
}
