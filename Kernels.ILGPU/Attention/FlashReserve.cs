namespace Treeline.Kernels.ILGPU;

// What grouped attention takes of memory when a step begins, so that nothing has been written where there is not enough.
public sealed partial class IlgpuBackend
{
    private const long MostWeights = 16L << 20;             // local weights, in numbers, that one launch may leave in scratch

    /// <summary>Builds a step's tiles, and takes the scratch memory that they need.</summary>
    internal void FlashReserve(IlgpuFlashLayer layer, Step step)
    {
        FlashTiles tiles = layer.Tiles;
        tiles.View(step, layer.Owner);
        _flash.Scratch(this, layer.Spec, step.Tokens, tiles.Rows);
        if (!UsesPatches) _flash.Runs(this, layer.Spec, tiles.Places);
        if (tiles.WalkCount > 0) _flash.Walks(this, (long)tiles.WalkCount * layer.Spec.KeyValueHeads * FlashWalk.SizeOf(layer.Memory));
        long weights = 1;
        foreach (FlashRound round in tiles.Rounds)
        {
            if (round.RunCount > 0) MoveGrid(layer.Spec, round.RunCount);       // more than are launched at once are refused while nothing has been written
            weights = Math.Max(weights, FlashPortion(layer.Spec, round.One, 1).Weights);
            weights = Math.Max(weights, FlashPortion(layer.Spec, round.Runs, FlashTile.RunRows).Weights);
            weights = Math.Max(weights, FlashPortion(layer.Spec, round.Trees, FlashTile.TreeRows).Weights);
        }

        _flash.Weights(this, weights);
    }

    /// <summary>How many tiles of so many rows one launch takes, the keys that each has room for, and the numbers that their local weights need.</summary>
    private (int AtOnce, int Keys, long Weights) FlashPortion(AttentionSpec spec, FlashTileRange range, int rows)
    {
        int lanes = Math.Min(KeyLanes, Accelerator.MaxNumThreadsPerGroup), keys = (range.MostKeys + lanes - 1) / lanes * lanes, most = MostThreads / (rows * ValueLanes(spec.ValueDim));
        if (UsesPatches) (keys, most) = (Math.Max(0, range.MostKeys - spec.GroupSize), MostThreads);       // the nodes of trees alone
        most = Math.Min(range.Count, most);
        if (spec.Local == LocalKind.None || range.Count == 0 || keys == 0) return (most, keys, 8 * rows);  // without weights eight keys' are read all the same
        long weights = (long)keys * spec.QueryHeads * rows;
        int atOnce = (int)Math.Clamp(MostWeights / weights, 1, most);
        return (atOnce, keys, atOnce * weights);
    }
}
