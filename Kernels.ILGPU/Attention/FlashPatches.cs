using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

// Grouped attention where a thread has vector registers of its own, as on a CPU: it computes all of a tile's rows of a head by itself, in patches, and nothing waits for anything.
// The same chains as those of the kernels in Flash.cs and FlashRuns.cs, whose groups share their tiles.
public sealed partial class IlgpuBackend
{
    private const int PatchKeys = 64;                       // shared keys whose weights a thread has at once

    /// <summary>True where a thread computes products by itself, in patches; false where a group shares a tile. What GPUs run is tested on devices that are none.</summary>
    internal bool UsesPatches { get; set; }

    private static bool IsYoso(AttentionSpec spec) => spec.Local is not (LocalKind.Relu2 or LocalKind.None);

    /// <summary>Entries that move by many tokens.</summary>
    private void Walk(Rows query, Rows key, Rows value, ArrayView<int> walks, int count, in FlashCall call)
    {
        AttentionSpec spec = call.Spec;
        KernelConfig grid = Groups(count, spec.KeyValueHeads, 2, 1);
        long size = FlashWalk.SizeOf(call.Memory);
        ArrayView<float> own = _flash.Walks(this, (long)count * spec.KeyValueHeads * size);
        if (IsYoso(spec)) Load(ref _flash.WalkYoso, FlashWalkKernel<YosoWeight>)(Stream, grid, query, key, value, call.Output, call.Terms, call.Step, walks, call.Memory, call.Scratch, own, size);
        else Load(ref _flash.Walk, FlashWalkKernel<Relu2Weight>)(Stream, grid, query, key, value, call.Output, call.Terms, call.Step, walks, call.Memory, call.Scratch, own, size);
    }

    /// <summary>All of some tiles.</summary>
    private void AttendInPatches(Rows query, Rows key, Rows value, FlashTileRange range, in FlashCall call)
    {
        AttentionSpec spec = call.Spec;
        (int atOnce, int keys, long weights) = FlashPortion(spec, range, FlashTile.TreeRows);
        var lie = new FlashRows(FlashTile.TreeRows, keys);
        FlashScratch scratch = call.Scratch.With(_flash.Weights(this, weights));
        Load(ref _flash.StorePatches, FlashStorePatchesKernel)(
            Stream, Groups(range.Count, spec.QueryHeads + spec.KeyValueHeads, 1, 1), query, key, value, call.Tiles, call.Memory, scratch, range.First);
        for (int first = 0; first < range.Count; first += atOnce)
        {
            KernelConfig grid = Groups(Math.Min(atOnce, range.Count - first), spec.QueryHeads, 1, 1);
            int tile = range.First + first;
            if (IsYoso(spec)) Load(ref _flash.PatchesYoso, FlashPatchesKernel<YosoWeight>)(Stream, grid, call.Output, call.Terms, call.Step, call.Tiles, call.Memory, scratch, tile, lie);
            else Load(ref _flash.Patches, FlashPatchesKernel<Relu2Weight>)(Stream, grid, call.Output, call.Terms, call.Step, call.Tiles, call.Memory, scratch, tile, lie);
        }
    }

    private void ClosePatches(AttentionSpec spec, FlashMemory memory, ArrayView<int> slots, int count) => Load(ref _flash.ClosePatches, FlashClosePatchesKernel)(
        Stream, Groups(count, (long)spec.KeyValueHeads * ((spec.HeadDim + 31) / 32), 1, 1), slots, memory);

    // A thread a run and key/value head, from group to group: what it needs of its rows and of S stays in the cache, and S and the window move in their places.
    private static void FlashWalkKernel<TWeight>(
        Rows query, Rows key, Rows value, Rows output, FlashTerms terms, StepView step, ArrayView<int> walks, FlashMemory memory, FlashScratch scratch, ArrayView<float> own, long size)
        where TWeight : struct, IColumnFunction
    {
        if (Grid.IdxZ == 0) return;                         // PoCL gives half of all groups to the first thread that asks, half of the others to the next: the first half has nothing to do
        var walk = new FlashWalk(walks, Grid.IdxX);
        int kv = Grid.IdxY, dk = memory.HeadDim, dv = memory.ValueDim, heads = memory.QueryHeads / memory.KeyValueHeads, tail = walk.Tail, end = walk.Token + walk.Count;
        long at = ((long)Grid.IdxX * memory.KeyValueHeads + kv) * size, state = memory.Global != 0 ? memory.StateRow(walk.Slot, kv, 0) : 0;
        var rows = new FlashHeadRows(own, at, FlashTile.RunRows, own, at + FlashWalk.KeysAt(memory), dk, own, at + FlashWalk.ValuesAt(memory), dv, own, at + FlashWalk.SumsAt(memory));
        long window = rows.Value - (long)memory.Window * dv, slot = memory.Value(walk.Slot, -memory.Window, kv);
        Patch.Copy(ref own[window], dv, ref memory.Values[slot], memory.ValueStride, memory.Window + tail, dv);
        if (memory.HasKeys != 0) Patch.Copy(ref own[rows.Key], dk, ref memory.Keys[memory.Key(walk.Slot, 0, kv)], memory.KeyStride, tail, dk);
        int next = walk.Token;
        while (next < end)
        {
            var tile = new FlashTile(walk.Slot, next, Math.Min(FlashTile.RunRows, Math.Min(memory.GroupSize - tail, end - next)), tail);
            next += tile.Count;
            for (int r = next; r < Math.Min(next + FlashTile.RunRows, end); r++)
            {
                Patch.Fetch(ref query[r, kv * heads * dk], heads * dk);
                Patch.Fetch(ref key[r, kv * dk], dk);
                Patch.Fetch(ref value[r, kv * dv], dv);
            }

            if (memory.HasKeys != 0) FlashNormalize(key, tile.Token, kv * dk, own, rows.Key + (long)tail * dk, dk, 1, tile.Count, dk);
            Patch.Copy(ref own[rows.Value + (long)tail * dv], dv, ref value[tile.Token, kv * dv], value.Stride, tile.Count, dv);
            for (int head = kv * heads; head < (kv + 1) * heads; head++)
            {
                if (memory.HasKeys != 0) FlashNormalize(query, tile.Token, head * dk, own, at, 1, FlashTile.RunRows, tile.Count, dk);
                FlashPatchTile<TWeight>(output, terms, step, tile, memory, scratch, rows, head, state, 0);
            }

            tail += tile.Count;
            if (tail < memory.GroupSize) continue;
            if (memory.Global != 0) FlashClosed(memory, state, own, rows.Key, dk, own, rows.Value, dv, 0, dk);
            Patch.Copy(ref own[window], dv, ref own[window + (long)memory.GroupSize * dv], dv, memory.Window, dv);
            tail = 0;
        }

        Patch.Copy(ref memory.Values[slot], memory.ValueStride, ref own[window], dv, memory.Window + tail, dv);
        if (memory.HasKeys != 0) Patch.Copy(ref memory.Keys[memory.Key(walk.Slot, 0, kv)], memory.KeyStride, ref own[rows.Key], dk, tail, dk);
    }

    // A thread a tile and query head: its q̂; then a tile and key/value head: its k̂ and v at their places.
    private static void FlashStorePatchesKernel(Rows query, Rows key, Rows value, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile)
    {
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = head - memory.QueryHeads, place = tile.Place + tile.Node, dk = memory.HeadDim, dv = memory.ValueDim;
        if (kv < 0)
        {
            FlashNormalize(query, tile.Token, head * dk, scratch.Queries, memory.Query(tile.Row, FlashTile.TreeRows, head), 1, FlashTile.TreeRows, tile.Count, dk);
            return;
        }

        if (memory.HasKeys != 0) FlashNormalize(key, tile.Token, kv * dk, memory.Keys, memory.Key(tile.Slot, place, kv), memory.KeyStride, 1, tile.Count, dk);
        Patch.Copy(ref memory.Values[memory.Value(tile.Slot, place, kv)], memory.ValueStride, ref value[tile.Token, kv * dv], value.Stride, tile.Count, dv);
    }

    /// <summary>Some rows' vectors, each by its norm, as <see cref="FlashNumbers.Normalize"/> does it.</summary>
    private static void FlashNormalize(Rows from, int row, int channel, ArrayView<float> to, long at, long toRow, long toStep, int rows, int count)
    {
        ArrayView<float> factors = SharedMemory.Allocate<float>(FlashTile.RunRows);
        bool near = true;
        Patch.Squares(ref factors[0], ref from[row, channel], from.Stride, 1, rows, count);
        for (int r = 0; r < rows; r++)
        {
            near &= FlashNumbers.AreNear(factors[r]);
            factors[r] = FlashNumbers.Factor(factors[r]);
        }

        Patch.Scale(ref to[at], toRow, toStep, ref from[row, channel], from.Stride, 1, ref factors[0], rows, count);
        for (int r = 0; r < (near ? 0 : rows); r++)
        {
            Patch.Squares(ref factors[0], ref from[row + r, channel], 0, 1, 1, count);
            if (FlashNumbers.AreNear(factors[0])) continue;
            float scale = FlashNumbers.ScaleOf(factors[0]);
            Patch.Squares(ref factors[0], ref from[row + r, channel], 0, scale, 1, count);
            factors[0] = FlashNumbers.Factor(factors[0]);
            Patch.Scale(ref to[at + r * toRow], toRow, toStep, ref from[row + r, channel], 0, scale, ref factors[0], 1, count);
        }
    }

    // A thread a tile and query head.
    private static void FlashPatchesKernel<TWeight>(Rows output, FlashTerms terms, StepView step, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, FlashRows lie)
        where TWeight : struct, IColumnFunction
    {
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head);
        var rows = new FlashHeadRows(
            scratch.Queries, memory.Query(tile.Row, lie.InTile, head), lie.InTile, memory.Keys, memory.Key(tile.Slot, 0, kv), memory.KeyStride, memory.Values, memory.Value(tile.Slot, 0, kv), memory.ValueStride,
            scratch.LocalSums, memory.Sum(tile.Row, lie.InTile, head));
        FlashPatchTile<TWeight>(
            output, terms, step, tile, memory, scratch, rows, head, memory.Global != 0 ? memory.StateRow(tile.Slot, kv, 0) : 0, ((long)Grid.IdxX * memory.QueryHeads + head) * lie.MostKeys * lie.InTile);
    }

    /// <summary>All of a tile's rows of a query head.</summary>
    /// <remarks>
    /// What is computed on the way lies in shared memory, which the next thread uses again, so that it stays in the cache. Rows that see all that lies before them take the keys behind the shared ones in one piece with these;
    /// nodes of a tree take them along their paths.
    /// </remarks>
    private static void FlashPatchTile<TWeight>(Rows output, FlashTerms terms, StepView step, FlashTile tile, FlashMemory memory, FlashScratch scratch, FlashHeadRows rows, int head, long state, long nodes)
        where TWeight : struct, IColumnFunction
    {
        ArrayView<float> weights = SharedMemory.Allocate<float>((PatchKeys + FlashTile.RunRows) * FlashTile.RunRows), local = SharedMemory.Allocate<float>(FlashTile.RunRows * Patch.Channels);
        ArrayView<float> global = SharedMemory.Allocate<float>(FlashTile.RunRows * Patch.Channels), conv = SharedMemory.Allocate<float>(FlashTile.RunRows * Patch.Channels);
        int dv = memory.ValueDim, shared = memory.Local != 0 ? tile.Shared : 0, channels = memory.Global != 0 ? memory.HeadDim : 0, causal = tile.Moves && memory.Local != 0 ? 1 : 0, first = 0;
        for (; first + PatchKeys < shared; first += PatchKeys)
        {
            FlashPatchScores<TWeight>(memory, rows, tile.Count, weights, 0, first, PatchKeys, 0);
            for (int e = 0; e < dv; e += Patch.Channels)
            {
                Patch.Product(
                    ref rows.Sums[rows.Sum + e], dv, ref rows.Sums[rows.Sum + e], dv, first, ref weights[0], 1, rows.InTile, ref rows.Values[rows.Value + first * rows.ValueStride + e], rows.ValueStride,
                    PatchKeys, 0, tile.Count, Math.Min(Patch.Channels, dv - e));
            }
        }

        if (memory.Local != 0)
        {
            FlashPatchScores<TWeight>(memory, rows, tile.Count, weights, 0, first, shared - first, causal);
            if (!tile.Moves) FlashPatchScores<TWeight>(memory, rows, tile.Count, scratch.Weights, nodes, tile.Place, tile.Count + tile.Node, 0);
        }

        for (int e = 0; e < dv; e += Patch.Channels)
        {
            int width = Math.Min(Patch.Channels, dv - e);
            Patch.Product(
                ref local[0], Patch.Channels, ref rows.Sums[rows.Sum + e], dv, first, ref weights[0], 1, rows.InTile, ref rows.Values[rows.Value + first * rows.ValueStride + e], rows.ValueStride,
                shared - first, causal, tile.Count, width);
            Patch.Product(ref global[0], Patch.Channels, ref global[0], 0, 0, ref rows.Queries[rows.Query], 1, rows.InTile, ref memory.State[state + e], dv, channels, 0, tile.Count, width);
            if (tile.Moves)
            {
                Patch.Filter(ref conv[0], Patch.Channels, ref terms.Taps[head * memory.Taps], memory.Taps, ref rows.Values[rows.Value + tile.Place * rows.ValueStride + e], rows.ValueStride, tile.Count, width);
                FlashJoinedRows(output, terms, memory, scratch, tile.Token, tile.Count, head, e, width, local, global, conv, 0);
                continue;
            }

            for (int r = 0; r < tile.Count; r++)
            {
                if ((tile.Own >> r & 1) == 0) continue;
                FlashOwnPath(terms, step, tile, memory, scratch.Weights, nodes + r, rows, local, conv, head, r, e, width);
                FlashJoinedRows(output, terms, memory, scratch, tile.Token + r, 1, head, e, width, local, global, conv, r * Patch.Channels);
            }
        }
    }

    /// <summary>The three terms of some rows and channels, joined or apart.</summary>
    private static void FlashJoinedRows(
        Rows output, FlashTerms terms, FlashMemory memory, FlashScratch scratch, int token, int count, int head, int e, int width, ArrayView<float> local, ArrayView<float> global, ArrayView<float> conv, int at)
    {
        int dv = memory.ValueDim, row = memory.QueryHeads * dv;
        if (memory.Norm == 0)
        {
            Patch.Join(ref output[token, head * dv + e], output.Stride, memory.Alpha(terms.Alpha), ref global[at], ref local[at], ref conv[at], Patch.Channels, count, width);
            return;
        }

        long to = (long)token * row + head * dv + e;
        Patch.Copy(ref scratch.Terms.Local[to], row, ref local[at], Patch.Channels, count, width);
        Patch.Copy(ref scratch.Terms.Global[to], row, ref global[at], Patch.Channels, count, width);
        Patch.Copy(ref scratch.Terms.Convolution[to], row, ref conv[at], Patch.Channels, count, width);
    }

    /// <summary>Weights of neighbouring keys for a tile's queries, <c>[key][row]</c>; where they are causal, of each sixteen queries' own keys too.</summary>
    private static void FlashPatchScores<TWeight>(FlashMemory memory, FlashHeadRows rows, int count, ArrayView<float> weights, long at, int place, int seen, int causal) where TWeight : struct, IColumnFunction
    {
        for (int r = 0; r < count; r += Patch.Channels)
        {
            int width = Math.Min(Patch.Channels, count - r), most = seen + causal * (r + width);
            Patch.Product(
                ref weights[at + r], rows.InTile, ref weights[at], 0, 0, ref rows.Keys[rows.Key + place * rows.KeyStride], rows.KeyStride, 1, ref rows.Queries[rows.Query + r], rows.InTile, memory.HeadDim, 0,
                most, Math.Min(Patch.Channels, rows.InTile - r));
        }

        // Those too that no row sees: one loop over all is the fastest.
        for (int i = 0; i < (seen + causal * count) * rows.InTile; i++) weights[at + i] = TWeight.Apply(weights[at + i]);
    }

    /// <summary>A node's own path in some channels: the keys on it, and its convolution over them and the values before.</summary>
    private static void FlashOwnPath(
        FlashTerms terms, StepView step, FlashTile tile, FlashMemory memory, ArrayView<float> weights, long at, FlashHeadRows rows, ArrayView<float> local, ArrayView<float> conv, int head, int r, int e, int width)
    {
        int token = tile.Token + r, news = step.Depth(token) + 1, nodes = token - r - tile.Node, sums = r * Patch.Channels;
        for (int n = 0; n < (memory.Local != 0 ? news : 0); n++)
        {
            int node = step.Ancestor(token, n) - nodes;
            FlashAdd(ref local[sums], 1, ref weights[at + (long)node * rows.InTile], ref rows.Values[rows.Value + (tile.Place + node) * rows.ValueStride + e], 0, 1, width);
        }

        int on = Math.Min(news, memory.Taps), taps = head * memory.Taps;
        for (int t = 0; t < on; t++)
            FlashAdd(ref conv[sums], t, ref terms.Taps[taps + t], ref rows.Values[rows.Value + (tile.Place + step.Ancestor(token, news - 1 - t) - nodes) * rows.ValueStride + e], 0, 1, width);
        if (on > 0 && on == memory.Taps) return;
        int before = memory.Taps > 0 ? tile.Shared - 1 : 0;
        FlashAdd(ref conv[sums], on, ref terms.Taps[taps + on], ref rows.Values[rows.Value + before * rows.ValueStride + e], -rows.ValueStride, memory.Taps - on, width);
    }

    /// <summary>More steps of one row's sums.</summary>
    private static void FlashAdd(ref float sums, int begun, ref float left, ref float right, long step, int steps, int width) =>
        Patch.Product(ref sums, 0, ref sums, 0, begun, ref left, 0, 1, ref right, step, steps, 0, 1, width);

    /// <summary>S past a group, some rows of it.</summary>
    private static void FlashClosed(FlashMemory memory, long state, ArrayView<float> keys, long key, long keyStride, ArrayView<float> values, long value, long valueStride, int c, int count)
    {
        int dv = memory.ValueDim;
        for (int e = 0; e < dv; e += Patch.Channels)
        {
            long at = state + (long)c * dv + e;
            Patch.Product(
                ref memory.State[at], dv, ref memory.State[at], dv, 1, ref keys[key + c], 1, keyStride, ref values[value + e], valueStride, memory.GroupSize, 0, count, Math.Min(Patch.Channels, dv - e));
        }
    }

    // A thread 32 rows of a slot's S: as FlashCloseKernel.
    private static void FlashClosePatchesKernel(ArrayView<int> slots, FlashMemory memory)
    {
        int strips = (memory.HeadDim + 31) / 32, kv = Grid.IdxY / strips, c = Grid.IdxY % strips * 32, slot = slots[Grid.IdxX];
        if (slot < 0) return;                               // a complement keeps what it has
        long state = memory.StateRow(slot, kv, 0);
        FlashClosed(memory, state, memory.Keys, memory.Key(slot, 0, kv), memory.KeyStride, memory.Values, memory.Value(slot, 0, kv), memory.ValueStride, c, Math.Min(32, memory.HeadDim - c));
    }
}

/// <summary>Where the rows of a head lie that a tile reads: its queries, <c>[headDim, rows]</c>, the keys and values of its block from place 0 on, and sums that it keeps.</summary>
internal readonly struct FlashHeadRows(
    ArrayView<float> queries, long query, int inTile, ArrayView<float> keys, long key, long keyStride, ArrayView<float> values, long value, long valueStride, ArrayView<float> sums, long sum)
{
    public readonly ArrayView<float> Queries = queries;
    public readonly ArrayView<float> Keys = keys;
    public readonly ArrayView<float> Values = values;
    public readonly ArrayView<float> Sums = sums;
    public readonly long Query = query;
    public readonly long Key = key;
    public readonly long KeyStride = keyStride;
    public readonly long Value = value;
    public readonly long ValueStride = valueStride;
    public readonly long Sum = sum;
    public readonly int InTile = inTile;
}

/// <summary>A run that a thread goes through from group to group. Its memory has the queries of a tile, then k̂ of a block, the values of its window and block, and a tile's sums.</summary>
internal readonly struct FlashWalk(ArrayView<int> ints, int index)
{
    public const int Ints = 4;

    public readonly int Slot = ints[index * Ints];

    /// <summary>Its first token in the step.</summary>
    public readonly int Token = ints[index * Ints + 1];

    public readonly int Count = ints[index * Ints + 2];

    /// <summary>Rows that the slot's block has before.</summary>
    public readonly int Tail = ints[index * Ints + 3];

    /// <summary>Where its k̂ begin.</summary>
    public static long KeysAt(FlashMemory memory) => (long)FlashTile.RunRows * memory.HeadDim;

    /// <summary>Where its block's values begin, behind the window's.</summary>
    public static long ValuesAt(FlashMemory memory) => KeysAt(memory) + (long)(memory.GroupSize + Patch.Rows) * memory.HeadDim + (long)memory.Window * memory.ValueDim;

    /// <summary>Where its sums begin.</summary>
    public static long SumsAt(FlashMemory memory) => ValuesAt(memory) + (long)(memory.GroupSize + Patch.Rows) * memory.ValueDim;

    /// <summary>All that it needs.</summary>
    public static long SizeOf(FlashMemory memory) => (SumsAt(memory) + (long)FlashTile.RunRows * memory.ValueDim + FlashMemory.Behind + 31) / 32 * 32;
}
