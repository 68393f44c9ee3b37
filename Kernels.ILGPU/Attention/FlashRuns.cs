using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

// Entries that move by more tokens than a tile within their block has, on GPUs: their rows lie in scratch memory behind those that the slot has, and what the slot keeps goes back to it.
public sealed partial class IlgpuBackend
{
    /// <summary>Brings what the slots of some runs hold to scratch, or from there what they are to hold.</summary>
    private void Move(AttentionSpec spec, ArrayView<int> runs, int count, FlashMemory memory, FlashMemory scratch, bool begins)
    {
        Load(ref _flash.Move, FlashMoveKernel)(Stream, MoveGrid(spec, count), runs, memory, scratch, begins ? 1 : 0);
    }

    private KernelConfig MoveGrid(AttentionSpec spec, int count)
    {
        int channels = spec.KeyValueHeads * Math.Max(spec.HeadDim, spec.ValueDim), lanes = Lanes(channels);
        return Groups(Math.Max(0L, spec.ConvTaps - 1) + spec.GroupSize + (spec.Global ? spec.HeadDim : 0), count, (channels + lanes - 1) / lanes, lanes);
    }

    // A group one row of a run and its lanes' channels: of the window and the begun block, then of S.
    private static void FlashMoveKernel(ArrayView<int> runs, FlashMemory memory, FlashMemory scratch, int begins)
    {
        var run = new FlashRun(runs, Grid.IdxY);
        int place = Grid.IdxX - memory.Window, channel = Grid.IdxZ * Group.DimX + Group.IdxX, rows = begins != 0 ? run.Before : run.After, other = begins != 0 ? run.Place : run.Place + run.Complete;
        bool kept = begins == 0 && run.Complete == 0;       // the slot's block stays, and what it had in it
        int kv = channel / memory.ValueDim, e = channel % memory.ValueDim, kvKey = channel / memory.HeadDim, c = channel % memory.HeadDim;
        if (place >= memory.GroupSize)
        {
            int row = place - memory.GroupSize;
            if (kv < memory.KeyValueHeads && !kept) FlashMoved(memory.State, memory.StateRow(run.Slot, kv, row) + e, scratch.State, scratch.StateRow(other, kv, row) + e, begins);
            return;
        }

        if (place >= rows || (kept && place < run.Before)) return;
        if (kv < memory.KeyValueHeads) FlashMoved(memory.Values, memory.Value(run.Slot, place, kv) + e, scratch.Values, scratch.Value(other, place, kv) + e, begins);
        if (memory.HasKeys != 0 && place >= 0 && kvKey < memory.KeyValueHeads)
            FlashMoved(memory.Keys, memory.Key(run.Slot, place, kvKey) + c, scratch.Keys, scratch.Key(other, place, kvKey) + c, begins);
    }

    private static void FlashMoved(ArrayView<float> own, long at, ArrayView<float> scratch, long other, int begins)
    {
        if (begins != 0) scratch[other] = own[at];
        else own[at] = scratch[other];
    }

    // A group eight rows of a run and a query head, a thread a value channel: their convolution, and the three terms joined. Each value that it reads serves as many rows as see it.
    private static void FlashStripKernel(Rows output, FlashTerms terms, ArrayView<int> tiles, FlashMemory memory, FlashScratch scratch, int firstTile)
    {
        int head = Grid.IdxY, kv = memory.KeyValueHead(head), row = memory.QueryHeads * memory.ValueDim;
        long e = (long)(Grid.IdxZ * Group.DimX) + Group.IdxX;
        var tile = new FlashTile(tiles, firstTile + Grid.IdxX / FlashTile.Strips);
        var strip = new FlashStrip(tile, Grid.IdxX % FlashTile.Strips);
        int values = FlashTerms.Values(memory.Taps), read = 0;
        long taps = (long)head * values * FlashTile.StripRows, own = memory.Value(strip.Slot, strip.Place + FlashTile.StripRows - 1, kv) + e;
        Column8 conv = default;
        do
        {
            Group.Barrier();                                // OpenCL compilers for CPUs copy what follows a barrier that may be skipped: this one never is
            conv = Tile.FourSeen(conv, terms.Strips, taps + read * FlashTile.StripRows, FlashTile.StripRows, memory.Values, own - (long)read * memory.ValueStride, -memory.ValueStride);
            conv = Tile.FourSeen(
                conv, terms.Strips, taps + (read + 4) * FlashTile.StripRows, FlashTile.StripRows, memory.Values, own - (read + 4L) * memory.ValueStride, -memory.ValueStride);
            read += 8;
        }
        while (read < values);
        uint rows = FirstRows(strip.Rows);
        long sums = memory.Sum(tile.Row, FlashTile.RunRows, head) + strip.Row * memory.ValueDim + e, at = (long)strip.Token * row + head * memory.ValueDim + e;
        Column8 local = Column8.Load(scratch.LocalSums, sums, memory.ValueDim), global = Column8.Load(scratch.GlobalSums, sums, memory.ValueDim);
        if (memory.Norm != 0)
        {
            Column8.Store(local, scratch.Terms.Local, at, row, rows);
            Column8.Store(global, scratch.Terms.Global, at, row, rows);
            Column8.Store(conv, scratch.Terms.Convolution, at, row, rows);
            return;
        }

        Column8.Store(Column8.Joined(memory.Alpha(terms.Alpha), global, local, conv), output.Data, strip.Token * output.Stride + head * memory.ValueDim + e, output.Stride, rows);
    }
}
