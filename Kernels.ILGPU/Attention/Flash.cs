using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

// A round at a time (FlashTiles): k̂ and v of its tokens go to their places in the slot's block (a verified tree's behind it), the tiles attend, and where a group is complete
// S moves past it. A verified tree writes neither S nor the block; its nodes past the block's end are computed one by one (FlashCrossing.cs).
public sealed partial class IlgpuBackend
{
    private const int KeyLanes = 64;                        // keys that a group scores

    private readonly FlashKernels _flash = new();

    /// <inheritdoc/>
    protected internal override LayerState CreateFlashLayer(AttentionState owner, int index) => new IlgpuFlashLayer((IlgpuState)owner, index);

    /// <inheritdoc/>
    protected override void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(step);
        if (step.Tokens == 0) return;
        AttentionSpec spec = layer.Spec;
        var flash = (IlgpuFlashLayer)state;
        FlashTiles tiles = flash.Tiles;
        ArrayView<int> view = tiles.View(step, state.Owner);
        var call = new FlashCall(spec, flash.Tables.View(step, state.Owner), view, flash.Memory, ((FlashWeights)layer.Prepared!).Terms, _flash.Scratch(this, spec, step.Tokens), Output(output));
        Rows query = Floats(inputs.Query, 0), key = Floats(inputs.Key, 1), value = Floats(inputs.Value, 2);
        foreach (FlashRound round in tiles.Rounds)
        {
            Load(ref _flash.Store, FlashStoreKernel)(
                Stream, Threads((long)round.Count * (spec.QueryHeads + 2 * spec.KeyValueHeads)), query, key, value, call.Step, call.Memory, call.Scratch, round.Number, round.First);
            Attend<Column1>(_flash.One, round.One, call, isRun: false);
            Attend<Column32>(_flash.Many, round.Runs, call, isRun: spec.ConvTaps is 0 or >= FlashTile.StripRows);
            Attend<Column8>(_flash.Eight, round.Trees, call, isRun: false);
            if (round.Closing > 0) Close(spec, call.Memory, tiles.Closing(round), round.Closing);
        }

        if (tiles.CrossingCount > 0) Cross(call, tiles.Crossing);
        if (spec.Norm != OutputNorm.None)
            Load(ref _flash.Join, FlashJoinKernel)(Stream, Threads((long)step.Tokens * spec.QueryHeads), call.Output, value, call.Terms, call.Memory, call.Scratch);
    }

    /// <summary>The scores and sums of some tiles, in as many launches as their weights need.</summary>
    private void Attend<TColumn>(FlashSize size, FlashTileRange range, in FlashCall call, bool isRun) where TColumn : unmanaged, IColumn<TColumn>
    {
        if (range.Count == 0) return;
        AttentionSpec spec = call.Spec;
        int lanes = ValueLanes(spec.ValueDim), keyLanes = Math.Min(KeyLanes, Accelerator.MaxNumThreadsPerGroup);
        (int atOnce, long weights) = FlashPortion(spec, range, TColumn.Rows);
        for (int first = 0; first < range.Count; first += atOnce)
        {
            int count = Math.Min(atOnce, range.Count - first);
            FlashScratch scratch = call.Scratch.With(_flash.Weights(this, weights));
            if (spec.Local != LocalKind.None)
            {
                Load(ref size.Score, FlashScoreKernel<TColumn>)(
                    Stream, new(new Index3D(count, spec.QueryHeads, (range.MostKeys + keyLanes - 1) / keyLanes), new Index3D(keyLanes, 1, 1)),
                    call.Tiles, call.Memory, scratch, range.First + first, range.MostKeys);
            }

            var group = new Index3D(lanes, 1, 1);
            Load(ref size.Share, FlashShareKernel<TColumn>)(
                Stream, new(new Index3D(count, spec.QueryHeads, spec.ValueDim / lanes), group), call.Tiles, call.Memory, scratch, range.First + first, range.MostKeys);
            int tile = range.First + first;
            if (isRun)
            {
                var grid = new Index3D(count * FlashTile.Strips, spec.QueryHeads, spec.ValueDim / lanes);
                Load(ref _flash.Run, FlashRunKernel)(Stream, new(grid, group), call.Tiles, call.Memory, scratch, tile, range.MostKeys);
                Load(ref _flash.RunTaps, FlashRunTapsKernel)(Stream, new(grid, group), call.Output, call.Terms, call.Tiles, call.Memory, scratch, tile);
            }
            else
            {
                Load(ref _flash.Node, FlashNodeKernel)(
                    Stream, new(new Index3D(count * TColumn.Rows, spec.QueryHeads, spec.ValueDim / lanes), group), call.Output, call.Terms, call.Step, call.Tiles, call.Memory, scratch, tile, new FlashRows(TColumn.Rows, range.MostKeys));
            }
        }
    }

    /// <summary>Threads of a group whose lanes run over value channels: as many as the device takes of those that divide them, so that no thread is without a channel.</summary>
    private int ValueLanes(int channels)
    {
        int lanes = Math.Min(channels, Math.Min(256, Accelerator.MaxNumThreadsPerGroup));
        while (channels % lanes != 0) lanes--;
        return lanes;
    }

    /// <summary>Moves S and the window past the block of some slots, which is complete; of a slot that is listed as its complement it is not.</summary>
    private void Close(AttentionSpec spec, FlashMemory memory, ArrayView<int> slots, int count)
    {
        int lanes = ValueLanes(spec.ValueDim);
        if (spec.Global)
        {
            Load(ref _flash.Close, FlashCloseKernel)(
                Stream, new(new Index3D(count, spec.KeyValueHeads * ((spec.HeadDim + 31) / 32), spec.ValueDim / lanes), new Index3D(lanes, 1, 1)), slots, memory);
        }

        if (memory.Window > 0) Load(ref _flash.Slide, FlashSlideKernel)(Stream, Threads((long)count * memory.ValueStride), slots, memory);
    }

    // One thread a head's vector: q̂ beside the step, k̂ and v at their places.
    private static void FlashStoreKernel(Index1D index, Rows query, Rows key, Rows value, StepView step, FlashMemory memory, FlashScratch scratch, int round, int first)
    {
        int heads = memory.QueryHeads + 2 * memory.KeyValueHeads, token = first + index / heads, head = index % heads, entry = step.Entry(token);
        int length = step.Length(entry), position = length + step.Depth(token), block = length - length % memory.GroupSize;
        bool moves = step.Moves(entry) != 0;
        if ((moves ? (position - block) / memory.GroupSize : 0) != round) return;
        int place = moves ? (position - block) % memory.GroupSize : memory.GroupSize + token - step.Offset(entry);
        if (head < memory.QueryHeads)
        {
            FlashNumbers.Normalize(query, token, head * memory.HeadDim, scratch.Queries, ((long)token * memory.QueryHeads + head) * memory.HeadDim, memory.HeadDim);
            return;
        }

        head -= memory.QueryHeads;
        if (head < memory.KeyValueHeads)
        {
            if (memory.HasKeys != 0) FlashNumbers.Normalize(key, token, head * memory.HeadDim, memory.Keys, memory.Key(step.Slot(entry), place, head), memory.HeadDim);
            return;
        }

        head -= memory.KeyValueHeads;
        long to = memory.Value(step.Slot(entry), place, head);
        for (int e = 0; e < memory.ValueDim; e++) memory.Values[to + e] = value[token, head * memory.ValueDim + e];
    }

    // A group a tile, query head and 64 keys, a thread a key: its local weights for the tile's rows, each dot one chain over the channels.
    private static void FlashScoreKernel<TColumn>(ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int mostKeys) where TColumn : unmanaged, IColumn<TColumn>
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(Tile.Size);
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), key = Grid.IdxZ * Group.DimX + Group.IdxX, keys = tile.Keys, read = Math.Min(key, keys - 1);
        int whole = memory.HeadDim - memory.HeadDim % Tile.Steps;
        long from = memory.Key(tile.Slot, read < tile.Shared ? read : tile.Place + read - tile.Shared, kv);
        TColumn dots = default;
        for (int c = 0; c < whole; c += Tile.Steps)
        {
            FlashQueries<TColumn>(shared, tile, head, memory, scratch, c, Tile.Steps);
            Group.Barrier();
            dots = Tile.Whole<TColumn, float, Float32Weight>(dots, shared, memory.Keys, from + c, 1);
            Group.Barrier();
        }

        FlashQueries<TColumn>(shared, tile, head, memory, scratch, whole, memory.HeadDim - whole);
        Group.Barrier();
        dots = Tile.Part<TColumn, float, Float32Weight>(dots, shared, memory.Keys, from + whole, 1, memory.HeadDim - whole);
        long to = (((long)Grid.IdxX * memory.QueryHeads + head) * mostKeys + read) * TColumn.Rows;
        TColumn.Store(TColumn.Map<LocalWeight>(dots, memory.Local), scratch.Weights, to, 1, key < keys ? 0xFFFFFFFF : 0);
    }

    // A group a tile, query head and its lanes' value channels, a thread a channel: what all rows of the tile share, the block's earlier keys and S. One chain each.
    private static void FlashShareKernel<TColumn>(ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int mostKeys)
        where TColumn : unmanaged, IColumn<TColumn>
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(Tile.Size);
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), e = Grid.IdxZ * Group.DimX + Group.IdxX, stride = memory.ValueStride, row = memory.QueryHeads * memory.ValueDim;
        long at = (long)tile.Token * row + head * memory.ValueDim + e, weights = ((long)Grid.IdxX * memory.QueryHeads + head) * mostKeys * TColumn.Rows;
        int keys = memory.Local != 0 ? tile.Shared : 0, whole = keys - keys % Tile.Steps;
        TColumn sums = default;
        for (int k = 0; k < whole; k += Tile.Steps)
        {
            FlashWeights<TColumn>(shared, scratch.Weights, weights + (long)k * TColumn.Rows, Tile.Steps);
            Group.Barrier();
            sums = Tile.Whole<TColumn, float, Float32Weight>(sums, shared, memory.Values, memory.Value(tile.Slot, k, kv) + e, stride);
            Group.Barrier();
        }

        TColumn.Store(sums, scratch.Local, at, row, FirstRows(tile.Count));
        sums = default;
        int channels = memory.Global != 0 ? memory.HeadDim : 0;
        whole = channels - channels % Tile.Steps;
        for (int c = 0; c < whole; c += Tile.Steps)
        {
            FlashQueries<TColumn>(shared, tile, head, memory, scratch, c, Tile.Steps);
            Group.Barrier();
            sums = Tile.Whole<TColumn, float, Float32Weight>(sums, shared, memory.State, memory.StateRow(tile.Slot, kv, c) + e, memory.ValueDim);
            Group.Barrier();
        }

        TColumn.Store(sums, scratch.Global, at, row, FirstRows(tile.Count));

    }

    // A group a row and query head, a thread a value channel: what the shared sums lack, the last few of them and the row's own path; then the three terms are joined.
    private static void FlashNodeKernel(Rows output, FlashTerms terms, StepView step, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, FlashRows rows)
    {
        int r = Grid.IdxX % rows.InTile, index = Grid.IdxX / rows.InTile, head = Grid.IdxY, kv = memory.KeyValueHead(head), e = Grid.IdxZ * Group.DimX + Group.IdxX;
        var tile = new FlashTile(tiles, firstTile + index);
        if (r >= tile.Count || (tile.Own >> r & 1) == 0) return;
        int token = tile.Token + r, news = tile.First >= 0 ? r + 1 : step.Depth(token) + 1, nodes = token - r - tile.Node, channels = memory.Global != 0 ? memory.HeadDim : 0, keys = memory.Local != 0 ? tile.Shared : 0;
        long at = (long)token * memory.QueryHeads * memory.ValueDim + head * memory.ValueDim + e, query = ((long)token * memory.QueryHeads + head) * memory.HeadDim;
        long weights = ((long)index * memory.QueryHeads + head) * rows.MostKeys * rows.InTile + r;
        float local = scratch.Local[at], global = scratch.Global[at], conv = 0;
        for (int c = channels - channels % Tile.Steps; c < channels; c++) global = Fused.MultiplyAdd(scratch.Queries[query + c], memory.State[memory.StateRow(tile.Slot, kv, c) + e], global);
        for (int k = keys - keys % Tile.Steps; k < keys; k++) local = Fused.MultiplyAdd(scratch.Weights[weights + (long)k * rows.InTile], memory.Values[memory.Value(tile.Slot, k, kv) + e], local);
        for (int i = 0; i < (memory.Local != 0 ? news : 0); i++)
        {
            int key = tile.First >= 0 ? i : step.Ancestor(token, i) - nodes;
            local = Fused.MultiplyAdd(scratch.Weights[weights + (long)(keys + key) * rows.InTile], memory.Values[memory.Value(tile.Slot, tile.Place + key, kv) + e], local);
        }

        for (int t = 0; t < memory.Taps; t++)
        {
            int place = t >= news ? tile.Shared - 1 - (t - news) : tile.Place + (tile.First >= 0 ? news - 1 - t : step.Ancestor(token, news - 1 - t) - nodes);
            conv = Fused.MultiplyAdd(terms.Taps[head * memory.Taps + t], memory.Values[memory.Value(tile.Slot, place, kv) + e], conv);
        }

        FlashJoined(output, terms, memory, scratch, token, head, e, local, global, conv);
    }

    // The same for eight rows of an entry that moves, which lie one behind the other: a thread has a channel of all eight, and each value that it reads serves as many of them as see it.
    private static void FlashRunKernel(ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int mostKeys)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(8 * FlashTile.StripRows);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), e = Grid.IdxZ * Group.DimX + Group.IdxX, stride = memory.ValueStride, row = memory.QueryHeads * memory.ValueDim;
        int index = Grid.IdxX / FlashTile.Strips, channels = memory.Global != 0 ? memory.HeadDim : 0;
        var strip = new FlashStrip(new FlashTile(tiles, firstTile + index), Grid.IdxX % FlashTile.Strips);
        int keys = memory.Local != 0 ? strip.Place : 0, k = memory.Local != 0 ? strip.TilePlace - strip.TilePlace % Tile.Steps : 0;
        long at = (long)strip.Token * row + head * memory.ValueDim + e, values = memory.Value(strip.Slot, 0, kv) + e;
        long weights = ((long)index * memory.QueryHeads + head) * mostKeys * FlashTile.RunRows + strip.Row;
        Column8 local = Column8.Load(scratch.Local, at, row, strip.Rows), global = Column8.Load(scratch.Global, at, row, strip.Rows);
        for (; k + 8 <= keys; k += 8)
        {
            for (int t = Group.IdxX; t < 64; t += Group.DimX) shared[t] = scratch.Weights[weights + (k + t / 8) * FlashTile.RunRows + t % 8];
            Group.Barrier();
            local = Tile.Half(local, shared, memory.Values, values + (long)k * stride, stride);
            Group.Barrier();
        }

        for (; k < keys; k++) local = Column8.PlusRows(local, scratch.Weights, weights + k * FlashTile.RunRows, memory.Values[values + (long)k * stride], 0, 8);
        if (memory.Local != 0) local = FlashRunOwn(local, scratch.Weights, weights + keys * FlashTile.RunRows, memory.Values, values + (long)keys * stride, stride);
        for (int c = channels - channels % Tile.Steps; c < channels; c++)
        {
            for (int t = Group.IdxX; t < FlashTile.StripRows; t += Group.DimX)
                shared[t] = scratch.Queries[((long)(strip.Token + Math.Max(0, Math.Min(t, strip.Rows - 1))) * memory.QueryHeads + head) * memory.HeadDim + c];
            Group.Barrier();
            global = Column8.Plus(global, shared, 0, memory.State[memory.StateRow(strip.Slot, kv, c) + e]);
            Group.Barrier();
        }

        Column8.Store(local, scratch.Local, at, row, FirstRows(strip.Rows));
        Column8.Store(global, scratch.Global, at, row, FirstRows(strip.Rows));
    }

    /// <summary>What eight rows add of each other: each sees those before it and itself.</summary>
    private static Column8 FlashRunOwn(Column8 local, ArrayView<float> weights, long weight, ArrayView<float> values, long own, long stride)
    {
        local = Column8.PlusRows(local, weights, weight, values[own], 0, 8);
        local = Column8.PlusRows(local, weights, weight + FlashTile.RunRows, values[own + stride], 1, 8);
        local = Column8.PlusRows(local, weights, weight + 2 * FlashTile.RunRows, values[own + 2 * stride], 2, 8);
        local = Column8.PlusRows(local, weights, weight + 3 * FlashTile.RunRows, values[own + 3 * stride], 3, 8);
        local = Column8.PlusRows(local, weights, weight + 4 * FlashTile.RunRows, values[own + 4 * stride], 4, 8);
        local = Column8.PlusRows(local, weights, weight + 5 * FlashTile.RunRows, values[own + 5 * stride], 5, 8);
        local = Column8.PlusRows(local, weights, weight + 6 * FlashTile.RunRows, values[own + 6 * stride], 6, 8);
        return Column8.PlusRows(local, weights, weight + 7 * FlashTile.RunRows, values[own + 7 * stride], 7, 8);
    }

    // Their convolution, and the three terms joined. (A kernel of its own: an OpenCL compiler for CPUs took 12 s over both together.)
    private static void FlashRunTapsKernel(Rows output, FlashTerms terms, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile)
    {
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), e = Grid.IdxZ * Group.DimX + Group.IdxX, row = memory.QueryHeads * memory.ValueDim;
        var strip = new FlashStrip(new FlashTile(tiles, firstTile + Grid.IdxX / FlashTile.Strips), Grid.IdxX % FlashTile.Strips);
        long at = (long)strip.Token * row + head * memory.ValueDim + e;
        uint rows = FirstRows(strip.Rows);
        Column8 conv = default;
        if (memory.Taps > 0) conv = FlashRunTaps(terms.Taps, head * memory.Taps, memory.Taps, memory.Values, memory.Value(strip.Slot, strip.Place, kv) + e, memory.ValueStride);
        if (memory.Norm != 0)
        {
            Column8.Store(conv, scratch.Convolution, at, row, rows);
            return;
        }

        Column8 local = Column8.Load(scratch.Local, at, row, strip.Rows), global = Column8.Load(scratch.Global, at, row, strip.Rows);
        Column8.Store(Column8.Joined(memory.Alpha(terms.Alpha), global, local, conv), output.Data, strip.Token * output.Stride + head * memory.ValueDim + e, output.Stride, rows);
    }

    /// <summary>The convolution of eight rows, from the last one's own value backwards: those that the first rows do not see yet, those that all see, those that the last ones have passed.</summary>
    private static Column8 FlashRunTaps(ArrayView<float> taps, int tap, int count, ArrayView<float> values, long own, long stride)
    {
        Column8 conv = default;
        conv = Column8.PlusRows(conv, taps, tap - 7, values[own + 7 * stride], 7, 8);
        conv = Column8.PlusRows(conv, taps, tap - 6, values[own + 6 * stride], 6, 8);
        conv = Column8.PlusRows(conv, taps, tap - 5, values[own + 5 * stride], 5, 8);
        conv = Column8.PlusRows(conv, taps, tap - 4, values[own + 4 * stride], 4, 8);
        conv = Column8.PlusRows(conv, taps, tap - 3, values[own + 3 * stride], 3, 8);
        conv = Column8.PlusRows(conv, taps, tap - 2, values[own + 2 * stride], 2, 8);
        conv = Column8.PlusRows(conv, taps, tap - 1, values[own + stride], 1, 8);
        int d = 0, all = count - 7;
        for (; d + 4 <= all; d += 4)
        {
            conv = Column8.PlusRows(conv, taps, tap + d, values[own - d * stride], 0, 8);
            conv = Column8.PlusRows(conv, taps, tap + d + 1, values[own - (d + 1) * stride], 0, 8);
            conv = Column8.PlusRows(conv, taps, tap + d + 2, values[own - (d + 2) * stride], 0, 8);
            conv = Column8.PlusRows(conv, taps, tap + d + 3, values[own - (d + 3) * stride], 0, 8);
            Group.Barrier();                                // an OpenCL compiler for CPUs makes vectors of what lies between two barriers
        }

        for (; d < all; d++) conv = Column8.PlusRows(conv, taps, tap + d, values[own - d * stride], 0, 8);
        conv = Column8.PlusRows(conv, taps, tap + d, values[own - d * stride], 0, 7);
        conv = Column8.PlusRows(conv, taps, tap + d + 1, values[own - (d + 1) * stride], 0, 6);
        conv = Column8.PlusRows(conv, taps, tap + d + 2, values[own - (d + 2) * stride], 0, 5);
        conv = Column8.PlusRows(conv, taps, tap + d + 3, values[own - (d + 3) * stride], 0, 4);
        conv = Column8.PlusRows(conv, taps, tap + d + 4, values[own - (d + 4) * stride], 0, 3);
        conv = Column8.PlusRows(conv, taps, tap + d + 5, values[own - (d + 5) * stride], 0, 2);
        return Column8.PlusRows(conv, taps, tap + d + 6, values[own - (d + 6) * stride], 0, 1);
    }

    private static void FlashJoined(Rows output, FlashTerms terms, FlashMemory memory, FlashScratch scratch, int token, int head, int e, float local, float global, float conv)
    {
        if (memory.Norm == 0)
        {
            output[token, head * memory.ValueDim + e] = Fused.MultiplyAdd(memory.Alpha(terms.Alpha), global, local) + conv;
            return;
        }

        long at = ((long)token * memory.QueryHeads + head) * memory.ValueDim + e;
        scratch.Local[at] = local;
        scratch.Global[at] = global;
        scratch.Convolution[at] = conv;
    }

    /// <summary>q̂ of a tile's rows, <c>[channel][row]</c>; rows past the last one repeat it.</summary>
    private static void FlashQueries<TColumn>(ArrayView<float> shared, FlashTile tile, int head, FlashMemory memory, FlashScratch scratch, int from, int steps) where TColumn : unmanaged, IColumn<TColumn>
    {
        for (int t = Group.IdxX; t < steps * TColumn.Rows; t += Group.DimX)
        {
            long token = tile.Token + Math.Min(t % TColumn.Rows, tile.Count - 1);
            shared[t] = scratch.Queries[(token * memory.QueryHeads + head) * memory.HeadDim + from + t / TColumn.Rows];
        }
    }

    /// <summary>The weights of some keys, <c>[key][row]</c>.</summary>
    private static void FlashWeights<TColumn>(ArrayView<float> shared, ArrayView<float> from, long at, int steps) where TColumn : unmanaged, IColumn<TColumn>
    {
        for (int t = Group.IdxX; t < steps * TColumn.Rows; t += Group.DimX) shared[t] = from[at + t];
    }

    // A group 32 rows of a slot's S, a thread a column: one chain from the old S through the block's rows in order.
    private static void FlashCloseKernel(ArrayView<int> slots, FlashMemory memory)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(Tile.Size);
        int listed = slots[Grid.IdxX], slot = listed < 0 ? ~listed : listed, keys = listed < 0 ? 0 : memory.GroupSize;
        int strips = (memory.HeadDim + 31) / 32, kv = Grid.IdxY / strips, c = Grid.IdxY % strips * 32, rows = Math.Min(32, memory.HeadDim - c);
        int e = Grid.IdxZ * Group.DimX + Group.IdxX, whole = keys - keys % Tile.Steps;
        Column32 sums = Column32.Load(memory.State, memory.StateRow(slot, kv, c) + e, memory.ValueDim, rows);
        for (int p = 0; p < whole; p += Tile.Steps)
        {
            FlashKeys(shared, memory, memory.Key(slot, p, kv) + c, rows, Tile.Steps);
            Group.Barrier();
            sums = Tile.Whole<Column32, float, Float32Weight>(sums, shared, memory.Values, memory.Value(slot, p, kv) + e, memory.ValueStride);
            Group.Barrier();
        }

        FlashKeys(shared, memory, memory.Key(slot, whole, kv) + c, rows, keys - whole);
        Group.Barrier();
        sums = Tile.Part<Column32, float, Float32Weight>(sums, shared, memory.Values, memory.Value(slot, whole, kv) + e, memory.ValueStride, keys - whole);
        Column32.Store(sums, memory.State, memory.StateRow(slot, kv, c) + e, memory.ValueDim, FirstRows(rows));
    }

    private static void FlashKeys(ArrayView<float> shared, FlashMemory memory, long from, int rows, int steps)
    {
        for (int t = Group.IdxX; t < steps * 32; t += Group.DimX) shared[t] = memory.Keys[from + t / 32 * memory.KeyStride + Math.Min(t % 32, rows - 1)];
    }

    // One thread a channel: the block's last values become the window of the next one. Upwards, so that nothing is overwritten unread.
    private static void FlashSlideKernel(Index1D index, ArrayView<int> slots, FlashMemory memory)
    {
        int slot = slots[index / memory.ValueStride], channel = index % memory.ValueStride;
        if (slot < 0) return;
        for (int place = -memory.Window; place < 0; place++)
            memory.Values[memory.Value(slot, place, 0) + channel] = memory.Values[memory.Value(slot, memory.GroupSize + place, 0) + channel];
    }

    /// <summary>What one call's launches have in common.</summary>
    private readonly record struct FlashCall(AttentionSpec Spec, StepView Step, ArrayView<int> Tiles, FlashMemory Memory, FlashTerms Terms, FlashScratch Scratch, Rows Output);

    /// <summary>The launchers of tiles of one size.</summary>
    private sealed class FlashSize
    {
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory, FlashScratch, int, int>? Score, Share;
    }

    /// <summary>The launchers, and scratch memory that one call fills and reads.</summary>
    private sealed class FlashKernels : IDisposable
    {
        public readonly FlashSize One = new(), Eight = new(), Many = new();
        public Action<AcceleratorStream, Index1D, Rows, Rows, Rows, StepView, FlashMemory, FlashScratch, int, int>? Store;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory, FlashScratch, int, int>? Run;
        public Action<AcceleratorStream, KernelConfig, Rows, FlashTerms, ArrayView<int>, FlashMemory, FlashScratch, int>? RunTaps;
        public Action<AcceleratorStream, KernelConfig, Rows, FlashTerms, StepView, ArrayView<int>, FlashMemory, FlashScratch, int, FlashRows>? Node;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory>? Close;
        public Action<AcceleratorStream, Index1D, ArrayView<int>, FlashMemory>? Slide;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, Rows, FlashTerms, StepView, FlashMemory, FlashScratch>? Crossing;
        public Action<AcceleratorStream, Index1D, Rows, Rows, FlashTerms, FlashMemory, FlashScratch>? Join;
        private DeviceArray<float>? _queries, _weights, _local, _global, _convolution;

        public FlashScratch Scratch(IlgpuBackend backend, AttentionSpec spec, long tokens)
        {
            long outputs = tokens * spec.QueryHeads * spec.ValueDim;
            return new FlashScratch(
                (_queries ??= new(backend)).Reserve(tokens * spec.QueryHeads * spec.HeadDim),
                default,
                (_local ??= new(backend)).Reserve(outputs),
                (_global ??= new(backend)).Reserve(outputs),
                (_convolution ??= new(backend)).Reserve(spec.Norm == OutputNorm.None ? 1 : outputs));
        }

        public ArrayView<float> Weights(IlgpuBackend backend, long count) => (_weights ??= new(backend)).Reserve(count);

        public void Dispose()
        {
            foreach (DeviceArray<float>? array in (ReadOnlySpan<DeviceArray<float>?>)[_queries, _weights, _local, _global, _convolution]) array?.Dispose();
        }
    }
}
