using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

// Tiles of neighbouring tokens (FlashTiles): q̂, k̂ and v are stored, the tiles attend, and where a group is complete S moves past it. A few tokens' k̂ and v go to their places in the slot's block,
// a verified tree's behind it; a tree writes neither S nor the block, its nodes past the block's end are computed one by one (FlashCrossing.cs). A run's rows lie in scratch memory (FlashRuns.cs).
// The kernels here are those of GPUs; what CPUs launch instead is in FlashPatches.cs.
public sealed partial class IlgpuBackend
{
    private const int KeyLanes = 32;                        // keys that a group scores

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
        FlashMemory runs = UsesPatches ? default : _flash.Runs(this, spec, tiles.Places);
        var call = new FlashCall(spec, flash.Tables.View(step, state.Owner), view, flash.Memory, ((FlashWeights)layer.Prepared!).Terms, _flash.Scratch(this, spec, step.Tokens, tiles.Rows), Output(output));
        Rows query = Floats(inputs.Query, 0), key = Floats(inputs.Key, 1), value = Floats(inputs.Value, 2);
        if (tiles.WalkCount > 0) Walk(query, key, value, tiles.Walks, tiles.WalkCount, call);
        foreach (FlashRound round in tiles.Rounds)
        {
            if (round.RunCount > 0)
            {
                ArrayView<int> list = tiles.Runs(round);
                Move(spec, list, round.RunCount, call.Memory, runs, begins: true);
                Store(query, key, value, call, runs, round.Runs, FlashTile.RunRows);
                if (spec.Global) Load(ref _flash.Close, FlashCloseKernel)(Stream, CloseGrid(spec, round.RunCount), list, runs, FlashRun.Ints);
                Attend<Column32>(_flash.Many, round.Runs, call with { Memory = runs });
                Move(spec, list, round.RunCount, call.Memory, runs, begins: false);
            }

            if (round.One.Count > 0)
            {
                Store(query, key, value, call, call.Memory, round.One, 1);
                Attend<Column1>(_flash.One, round.One, call);
            }

            if (round.Trees.Count > 0)
            {
                if (UsesPatches)
                {
                    AttendInPatches(query, key, value, round.Trees, call);
                    continue;
                }

                Store(query, key, value, call, call.Memory, round.Trees, FlashTile.TreeRows);
                Attend<Column8>(_flash.Eight, round.Trees, call);
            }
        }

        if (tiles.ClosingCount > 0) Close(spec, call.Memory, tiles.Closing, tiles.ClosingCount);
        if (tiles.CrossingCount > 0) Cross(call, tiles.Crossing, tiles.CrossingCount);
        if (spec.Norm != OutputNorm.None)
            Load(ref _flash.Join, FlashJoinKernel)(Stream, Threads((long)step.Tokens * spec.QueryHeads), call.Output, value, call.Terms, call.Memory, call.Scratch);
    }

    /// <summary>q̂, k̂ and v of some tiles.</summary>
    private void Store(Rows query, Rows key, Rows value, in FlashCall call, FlashMemory memory, FlashTileRange range, int rows) => Load(ref _flash.Store, FlashStoreKernel)(
        Stream, Threads((long)range.Count * rows * (memory.QueryHeads + 2 * memory.KeyValueHeads)), query, key, value, call.Tiles, memory, call.Scratch, range.First, rows);

    /// <summary>The scores and sums of some tiles, in as many launches as their weights need.</summary>
    private void Attend<TColumn>(FlashSize size, FlashTileRange range, in FlashCall call) where TColumn : unmanaged, IColumn<TColumn>
    {
        AttentionSpec spec = call.Spec;
        int lanes = ValueLanes(spec.ValueDim), keyLanes = Math.Min(KeyLanes, Accelerator.MaxNumThreadsPerGroup);
        (int atOnce, int keys, long weights) = FlashPortion(spec, range, TColumn.Rows);
        var rows = new FlashRows(TColumn.Rows, keys);
        FlashScratch scratch = call.Scratch.With(_flash.Weights(this, weights));
        for (int first = 0; first < range.Count; first += atOnce)
        {
            int count = Math.Min(atOnce, range.Count - first), tile = range.First + first;
            KernelConfig scores = Groups(count, spec.QueryHeads, keys / keyLanes, keyLanes);
            if (spec.Local == LocalKind.Relu2) Load(ref size.Score, FlashScoreKernel<TColumn, Relu2Weight>)(Stream, scores, call.Tiles, call.Memory, scratch, tile, rows.MostKeys);
            else if (spec.Local != LocalKind.None) Load(ref size.ScoreYoso, FlashScoreKernel<TColumn, YosoWeight>)(Stream, scores, call.Tiles, call.Memory, scratch, tile, rows.MostKeys);
            Load(ref size.Share, FlashShareKernel<TColumn>)(
                Stream, Groups(count, spec.QueryHeads, spec.ValueDim / lanes, lanes), call.Tiles, call.Memory, scratch, tile, rows.MostKeys);
            if (TColumn.Rows == FlashTile.RunRows)
            {
                Load(ref _flash.Strip, FlashStripKernel)(
                    Stream, Groups((long)count * FlashTile.Strips, spec.QueryHeads, spec.ValueDim / lanes, lanes), call.Output, call.Terms, call.Tiles, call.Memory, scratch, tile);
            }
            else
            {
                Load(ref _flash.Node, FlashNodeKernel)(
                    Stream, Groups((long)count * TColumn.Rows, spec.QueryHeads, spec.ValueDim / lanes, lanes), call.Output, call.Terms, call.Step, call.Tiles, call.Memory, scratch, tile, rows);
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
        if (spec.Global && UsesPatches) ClosePatches(spec, memory, slots, count);
        else if (spec.Global) Load(ref _flash.Close, FlashCloseKernel)(Stream, CloseGrid(spec, count), slots, memory, 1);
        if (memory.Window > 0) Load(ref _flash.Slide, FlashSlideKernel)(Stream, Threads((long)count * memory.ValueStride), slots, memory);
    }

    private KernelConfig CloseGrid(AttentionSpec spec, int count)
    {
        int lanes = ValueLanes(spec.ValueDim);
        return Groups(count, (long)spec.KeyValueHeads * ((spec.HeadDim + 31) / 32), spec.ValueDim / lanes, lanes);
    }

    // One thread a head's vector of a tile's row: q̂ to its tile, k̂ and v at their places.
    private static void FlashStoreKernel(Index1D index, Rows query, Rows key, Rows value, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int rows)
    {
        int heads = memory.QueryHeads + 2 * memory.KeyValueHeads, head = index % heads, r = index / heads % rows;
        var tile = new FlashTile(tiles, firstTile + index / heads / rows);
        if (r >= tile.Count) return;
        int token = tile.Token + r, place = tile.Place + tile.Node + r;
        bool isQuery = head < memory.QueryHeads;
        if (!isQuery) head -= memory.QueryHeads;
        if (isQuery || head < memory.KeyValueHeads)
        {
            if (isQuery || memory.HasKeys != 0)
            {
                FlashNumbers.Normalize(
                    isQuery ? query : key, token, head * memory.HeadDim, isQuery ? scratch.Queries : memory.Keys,
                    isQuery ? memory.Query(tile.Row, rows, head) + r : memory.Key(tile.Slot, place, head), isQuery ? rows : 1, memory.HeadDim);
            }

            return;
        }

        head -= memory.KeyValueHeads;
        long to = memory.Value(tile.Slot, place, head);
        for (int e = 0; e < memory.ValueDim; e++) memory.Values[to + e] = value[token, head * memory.ValueDim + e];
    }

    // In the kernels below the left side of each product, q̂, weights or k̂, is the same for the whole group and is read where it lies. Their barriers keep nothing apart: where they run on a
    // CPU after all, an OpenCL compiler keeps what lives across one in memory, a thread's sums side by side, and so makes vectors of all that leads to them.

    // A group a tile, query head and some keys, a thread a key: its local weights for the tile's rows, each dot one chain over the channels. A run's rows do not see the keys behind their own.
    private static void FlashScoreKernel<TColumn, TWeight>(ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int mostKeys)
        where TColumn : unmanaged, IColumn<TColumn> where TWeight : struct, IColumnFunction
    {
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), firstKey = Grid.IdxZ * Group.DimX, key = firstKey + Group.IdxX, read = Math.Min(key, tile.Keys - 1);
        int whole = memory.HeadDim - memory.HeadDim % 8, end = firstKey < tile.Keys ? whole : 0;
        long queries = memory.Query(tile.Row, TColumn.Rows, head), keys = memory.Key(tile.Slot, read < tile.Shared ? read : tile.Place + read - tile.Shared, kv);
        TColumn dots = default;
        for (int c = 0; c < end; c += 8) dots = Tile.Eight(dots, scratch.Queries, queries + c * TColumn.Rows, TColumn.Rows, memory.Keys, keys + c, 1);
        dots = Tile.Few(dots, scratch.Queries, queries + whole * TColumn.Rows, TColumn.Rows, memory.Keys, keys + whole, 1, memory.HeadDim - whole);
        dots = TColumn.Map<TWeight>(dots);
        if (TColumn.Rows == FlashTile.RunRows) dots = TColumn.From(dots, key - tile.Shared);
        TColumn.StoreAll(dots, scratch.Weights, (((long)Grid.IdxX * memory.QueryHeads + head) * mostKeys + key) * TColumn.Rows);
    }

    // A group a tile, query head and its lanes' value channels, a thread a channel: the block's keys that the rows see, of a tree those alone that all of them see in whole eights, and S. One chain each.
    private static void FlashShareKernel<TColumn>(ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, int mostKeys)
        where TColumn : unmanaged, IColumn<TColumn>
    {
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX);
        int head = Grid.IdxY, kv = memory.KeyValueHead(head);
        int keys = memory.Local == 0 ? 0 : TColumn.Rows == FlashTile.RunRows ? tile.Keys : tile.Shared - tile.Shared % 8;
        long e = (long)(Grid.IdxZ * Group.DimX) + Group.IdxX, at = memory.Sum(tile.Row, TColumn.Rows, head) + e;
        long weights = memory.Local != 0 ? ((long)Grid.IdxX * memory.QueryHeads + head) * mostKeys * TColumn.Rows : 0;
        TColumn sums = default;
        for (int k = 0; k < keys; k += TColumn.Rows == FlashTile.RunRows ? 4 : 8)
        {
            long values = memory.Value(tile.Slot, k, kv) + e;
            sums = TColumn.Rows == FlashTile.RunRows
                ? Tile.FourSeen(sums, scratch.Weights, weights + (long)k * TColumn.Rows, TColumn.Rows, memory.Values, values, memory.ValueStride)
                : Tile.Eight(sums, scratch.Weights, weights + (long)k * TColumn.Rows, TColumn.Rows, memory.Values, values, memory.ValueStride);
        }

        Group.Barrier();
        TColumn.Store(sums, scratch.LocalSums, at, memory.ValueDim, uint.MaxValue);
        int channels = memory.Global != 0 ? memory.HeadDim : 0, whole = channels - channels % 8;
        long queries = memory.Query(tile.Row, TColumn.Rows, head), state = memory.Global != 0 ? memory.StateRow(tile.Slot, kv, 0) + e : e;
        sums = default;
        for (int c = 0; c < whole; c += 8) sums = Tile.Eight(sums, scratch.Queries, queries + c * TColumn.Rows, TColumn.Rows, memory.State, state + (long)c * memory.ValueDim, memory.ValueDim);
        sums = Tile.Few(sums, scratch.Queries, queries + whole * TColumn.Rows, TColumn.Rows, memory.State, state + (long)whole * memory.ValueDim, memory.ValueDim, channels - whole);
        Group.Barrier();
        TColumn.Store(sums, scratch.GlobalSums, at, memory.ValueDim, uint.MaxValue);
    }

    // A group a row of a tree or of a few tokens and query head, a thread a value channel: the keys that are left, its own path and the convolution; then the three terms are joined.
    private static void FlashNodeKernel(Rows output, FlashTerms terms, StepView step, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile, FlashRows rows)
    {
        int r = Grid.IdxX % rows.InTile, index = Grid.IdxX / rows.InTile, head = Grid.IdxY, kv = memory.KeyValueHead(head), e = Grid.IdxZ * Group.DimX + Group.IdxX;
        var tile = new FlashTile(tiles, firstTile + index);
        if (r >= tile.Count || (tile.Own >> r & 1) == 0) return;
        int token = tile.Token + r, news = tile.Moves ? r + 1 : step.Depth(token) + 1, nodes = token - r - tile.Node, keys = memory.Local != 0 ? tile.Shared : 0;
        long at = memory.Sum(tile.Row, rows.InTile, head) + r * memory.ValueDim + e, weights = ((long)index * memory.QueryHeads + head) * rows.MostKeys * rows.InTile + r;
        float local = scratch.LocalSums[at], global = scratch.GlobalSums[at], conv = 0;
        for (int k = keys - keys % 8; k < keys; k++) local = Fused.MultiplyAdd(scratch.Weights[weights + (long)k * rows.InTile], memory.Values[memory.Value(tile.Slot, k, kv) + e], local);
        for (int i = 0; i < (memory.Local != 0 ? news : 0); i++)
        {
            int key = tile.Moves ? i : step.Ancestor(token, i) - nodes;
            local = Fused.MultiplyAdd(scratch.Weights[weights + (long)(keys + key) * rows.InTile], memory.Values[memory.Value(tile.Slot, tile.Place + key, kv) + e], local);
        }

        for (int t = 0; t < memory.Taps; t++)
        {
            int place = t >= news ? tile.Shared - 1 - (t - news) : tile.Place + (tile.Moves ? news - 1 - t : step.Ancestor(token, news - 1 - t) - nodes);
            conv = Fused.MultiplyAdd(terms.Taps[head * memory.Taps + t], memory.Values[memory.Value(tile.Slot, place, kv) + e], conv);
        }

        FlashJoined(output, terms, memory, scratch, token, head, e, local, global, conv);
    }

    private static void FlashJoined(Rows output, FlashTerms terms, FlashMemory memory, FlashScratch scratch, int token, int head, int e, float local, float global, float conv)
    {
        if (memory.Norm == 0)
        {
            output[token, head * memory.ValueDim + e] = Fused.MultiplyAdd(memory.Alpha(terms.Alpha), global, local) + conv;
            return;
        }

        long at = ((long)token * memory.QueryHeads + head) * memory.ValueDim + e;
        scratch.Terms.Local[at] = local;
        scratch.Terms.Global[at] = global;
        scratch.Terms.Convolution[at] = conv;
    }

    // A group 32 rows of S, a thread a column: one chain from the old S through the rows of each group that is complete, in order. A slot's S stays in its place; in a run S past a group goes to the next one's.
    private static void FlashCloseKernel(ArrayView<int> list, FlashMemory memory, int ints)
    {
        int strips = (memory.HeadDim + 31) / 32, kv = Grid.IdxY / strips, c = Grid.IdxY % strips * 32;
        int listed = list[Grid.IdxX * ints + (ints > 1 ? 1 : 0)], place = listed ^ (listed >> 31), complete = ints > 1 ? list[Grid.IdxX * ints + 2] : 1, whole = memory.GroupSize - memory.GroupSize % 8, group = 0;
        long e = (long)(Grid.IdxZ * Group.DimX) + Group.IdxX;
        uint own = FirstRows(memory.HeadDim - c) & ~(uint)(listed >> 31);        // a complement keeps what it has
        Column32 sums = Column32.Load(memory.State, memory.StateRow(place, kv, c) + e, memory.ValueDim);
        do
        {
            long keys = memory.Key(place + group, 0, kv) + c, values = memory.Value(place + group, 0, kv) + e;
            for (int p = 0; p < whole; p += 8) sums = Tile.Eight(sums, memory.Keys, keys + (long)p * memory.KeyStride, memory.KeyStride, memory.Values, values + (long)p * memory.ValueStride, memory.ValueStride);
            sums = Tile.Few(sums, memory.Keys, keys + (long)whole * memory.KeyStride, memory.KeyStride, memory.Values, values + (long)whole * memory.ValueStride, memory.ValueStride, memory.GroupSize - whole);
            Group.Barrier();
            group++;
            Column32.Store(sums, memory.State, memory.StateRow(ints > 1 ? place + group : place, kv, c) + e, memory.ValueDim, group <= complete ? own : 0);
        }
        while (group < complete);
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
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory, FlashScratch, int, int>? Score, ScoreYoso, Share;
    }

    /// <summary>The launchers, and scratch memory that one call fills and reads.</summary>
    private sealed class FlashKernels : IDisposable
    {
        public readonly FlashSize One = new(), Eight = new(), Many = new();
        public Action<AcceleratorStream, Index1D, Rows, Rows, Rows, ArrayView<int>, FlashMemory, FlashScratch, int, int>? Store;
        public Action<AcceleratorStream, KernelConfig, Rows, Rows, Rows, ArrayView<int>, FlashMemory, FlashScratch, int>? StorePatches;
        public Action<AcceleratorStream, KernelConfig, Rows, FlashTerms, ArrayView<int>, FlashMemory, FlashScratch, int>? Strip;
        public Action<AcceleratorStream, KernelConfig, Rows, FlashTerms, StepView, ArrayView<int>, FlashMemory, FlashScratch, int, FlashRows>? Node;
        public Action<AcceleratorStream, KernelConfig, Rows, FlashTerms, StepView, ArrayView<int>, FlashMemory, FlashScratch, int, FlashRows>? Patches, PatchesYoso;
        public Action<AcceleratorStream, KernelConfig, Rows, Rows, Rows, Rows, FlashTerms, StepView, ArrayView<int>, FlashMemory, FlashScratch, ArrayView<float>, long>? Walk, WalkYoso;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory>? ClosePatches;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory, int>? Close;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, FlashMemory, FlashMemory, int>? Move;
        public Action<AcceleratorStream, Index1D, ArrayView<int>, FlashMemory>? Slide;
        public Action<AcceleratorStream, KernelConfig, ArrayView<int>, Rows, FlashTerms, StepView, FlashMemory, FlashScratch>? Crossing;
        public Action<AcceleratorStream, Index1D, Rows, Rows, FlashTerms, FlashMemory, FlashScratch>? Join;
        private DeviceArray<float>? _queries, _weights, _localSums, _globalSums, _local, _global, _convolution, _runStates, _runKeys, _runValues, _walks;

        public FlashScratch Scratch(IlgpuBackend backend, AttentionSpec spec, long tokens, long rows)
        {
            long outputs = spec.Norm == OutputNorm.None ? 1 : tokens * spec.QueryHeads * spec.ValueDim, sums = rows * spec.QueryHeads * spec.ValueDim;
            return new FlashScratch(
                (_queries ??= new(backend)).Reserve(rows * spec.QueryHeads * spec.HeadDim + 8 * FlashMemory.Behind),
                default,
                (_localSums ??= new(backend)).Reserve(sums + FlashMemory.Behind),
                (_globalSums ??= new(backend)).Reserve(sums),
                new FlashTermsApart((_local ??= new(backend)).Reserve(outputs), (_global ??= new(backend)).Reserve(outputs), (_convolution ??= new(backend)).Reserve(outputs)));
        }

        public ArrayView<float> Weights(IlgpuBackend backend, long count) => (_weights ??= new(backend)).Reserve(count);

        public ArrayView<float> Walks(IlgpuBackend backend, long count) => (_walks ??= new(backend)).Reserve(count);

        /// <summary>Where runs lie: the groups of one follow each other.</summary>
        public FlashMemory Runs(IlgpuBackend backend, AttentionSpec spec, long groups)
        {
            int rows = checked((int)(groups * spec.GroupSize + FlashMemory.Behind + Math.Max(0, spec.ConvTaps - 1)));
            return new FlashMemory(
                spec,
                (_runStates ??= new(backend)).Reserve(FlashMemory.States(spec, groups)),
                (_runKeys ??= new(backend)).Reserve(FlashMemory.KeyRows(spec, rows)),
                (_runValues ??= new(backend)).Reserve(FlashMemory.ValueRows(spec, rows)),
                spec.GroupSize,
                spec.GroupSize,
                rows);
        }

        public void Dispose()
        {
            foreach (DeviceArray<float>? array in (ReadOnlySpan<DeviceArray<float>?>)[_queries, _weights, _localSums, _globalSums, _local, _global, _convolution, _runStates, _runKeys, _runValues, _walks]) array?.Dispose();
        }
    }
}
