using System.Runtime.InteropServices;
using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>What a step asks of grouped attention, cut into tiles on the host; the same for all layers of a group size. Uploaded once a step.</summary>
/// <remarks>
/// A step runs in rounds: round r has the tokens of the r-th group that a moving entry touches, and round 0 the verified trees too. A tile is neighbouring tokens
/// of one entry and round. A node of a tree that lies past the block's end is in no tile (<see cref="Crossing"/>).
/// </remarks>
internal sealed class FlashTiles(IlgpuBackend backend, int groupSize) : IDisposable
{
    private readonly DeviceArray<int> _device = new(backend);
    private readonly List<int> _ints = [], _crossing = [], _closing = [];
    private readonly List<FlashRound> _rounds = [];
    private long _stamp = -1;
    private int _tiles;

    /// <summary>Tokens between two block boundaries.</summary>
    public int GroupSize => groupSize;

    /// <summary>Rounds, in order.</summary>
    public ReadOnlySpan<FlashRound> Rounds => CollectionsMarshal.AsSpan(_rounds);

    /// <summary>How many nodes of trees lie past their block's end.</summary>
    public int CrossingCount => _crossing.Count;

    /// <summary>The tables of a step that has begun; built again where another step's are there.</summary>
    public ArrayView<int> View(Step step, AttentionState state)
    {
        if (_stamp != step.Stamp)
        {
            _stamp = -1;
            Build(step, state);
            _stamp = step.Stamp;
        }

        return _device.First(_ints.Count);
    }

    /// <summary>The slots whose group a round completes.</summary>
    public ArrayView<int> Closing(FlashRound round) => _device.First(_ints.Count).SubView(FlashTile.Ints * _tiles + _crossing.Count + round.FirstClosing, round.Closing);

    /// <summary>The step's tokens past their block's end.</summary>
    public ArrayView<int> Crossing => _device.First(_ints.Count).SubView(FlashTile.Ints * _tiles, _crossing.Count);

    public void Dispose() => _device.Dispose();

    private void Build(Step step, AttentionState state)
    {
        _ints.Clear();
        _crossing.Clear();
        _closing.Clear();
        _rounds.Clear();
        int rounds = 1;
        for (int e = 0; e < step.Entries; e++)
            if (step[e].Moves && step[e].Count > 0) rounds = Math.Max(rounds, (state.Length(step[e].Slot) % groupSize + step[e].Count - 1) / groupSize + 1);
        for (int round = 0; round < rounds; round++) Round(round, step, state);
        _tiles = _ints.Count / FlashTile.Ints;
        _ints.AddRange(_crossing);
        _ints.AddRange(_closing);
        _device.Upload(CollectionsMarshal.AsSpan(_ints));
    }

    private void Round(int number, Step step, AttentionState state)
    {
        int firstClosing = _closing.Count, first = int.MaxValue, end = 0;
        Span<FlashTileRange> ranges = stackalloc FlashTileRange[3];
        for (int kind = 0; kind < ranges.Length; kind++)
        {
            int firstTile = _ints.Count / FlashTile.Ints, most = 0;
            for (int e = 0; e < step.Entries; e++)
            {
                StepEntry entry = step[e];
                int length = state.Length(entry.Slot), tail = length % groupSize;
                int from = number == 0 ? 0 : number * groupSize - tail, to = entry.Moves ? Math.Min(entry.Count, (number + 1) * groupSize - tail) : number == 0 ? entry.Count : 0;
                if (from >= to) continue;
                (first, end) = (Math.Min(first, entry.Offset + from), Math.Max(end, entry.Offset + to));
                if (kind == 0 && entry.Moves && to == (number + 1) * groupSize - tail) _closing.Add(entry.Slot);
                if (kind != (to - from == 1 ? 0 : entry.Moves ? 1 : 2)) continue;
                int rows = kind == 0 ? 1 : kind == 1 ? FlashTile.RunRows : FlashTile.TreeRows;
                for (int row = from; row < to; row += rows)
                {
                    int count = Math.Min(rows, to - row);
                    int shared = entry.Moves ? (tail + row) % groupSize : tail;
                    ReadOnlySpan<int> tile = entry.Moves
                        ? [entry.Slot, entry.Offset + row, count, -1, shared, shared, row]
                        : [entry.Slot, entry.Offset + row, count, Within(entry, row, count, tail), shared, groupSize, ~row];
                    _ints.AddRange(tile);
                    most = Math.Max(most, entry.Moves ? groupSize : groupSize + row + count);
                }
            }

            ranges[kind] = new FlashTileRange(firstTile, _ints.Count / FlashTile.Ints - firstTile, most);
        }

        _rounds.Add(new FlashRound(number, first, Math.Max(0, end - first), ranges[0], ranges[1], ranges[2], firstClosing, _closing.Count - firstClosing));
    }

    /// <summary>Which rows of a tile of a tree lie before the block's end; the others are listed as crossing, once.</summary>
    private int Within(StepEntry entry, int row, int count, int tail)
    {
        uint within = 0;
        for (int r = 0; r < count; r++)
        {
            if (tail + entry.Tree.Depth(row + r) < groupSize) within |= 1u << r;
            else _crossing.Add(entry.Offset + row + r);
        }

        return unchecked((int)within);
    }
}

/// <summary>Tiles of one kind that a round has.</summary>
/// <param name="First">The first one's index.</param>
/// <param name="Count">How many.</param>
/// <param name="MostKeys">As many keys as the one that has most may have at any length, so that scratch does not grow from token to token.</param>
internal readonly record struct FlashTileRange(int First, int Count, int MostKeys);

/// <summary>One round of a step.</summary>
/// <param name="Number">Which group of a moving entry.</param>
/// <param name="First">The first token that it may concern.</param>
/// <param name="Count">How many from there on.</param>
/// <param name="One">Tiles of entries of one token.</param>
/// <param name="Runs">Tiles of entries that move.</param>
/// <param name="Trees">Tiles of trees.</param>
/// <param name="FirstClosing">Where the slots whose group it completes are listed.</param>
/// <param name="Closing">How many they are.</param>
internal readonly record struct FlashRound(int Number, int First, int Count, FlashTileRange One, FlashTileRange Runs, FlashTileRange Trees, int FirstClosing, int Closing);

/// <summary>One tile as kernels see it.</summary>
internal readonly struct FlashTile(ArrayView<int> ints, int index)
{
    public const int Ints = 7;

    /// <summary>Rows of a tile of an entry that moves.</summary>
    public const int RunRows = 32;

    /// <summary>Rows of a tile of a tree.</summary>
    public const int TreeRows = 8;

    /// <summary>Rows of an entry that moves which are finished together.</summary>
    public const int StripRows = 8;

    /// <summary>Strips of a tile.</summary>
    public const int Strips = RunRows / StripRows;

    public readonly int Slot = ints[index * Ints];

    /// <summary>Its first row's token in the step.</summary>
    public readonly int Token = ints[index * Ints + 1];

    public readonly int Count = ints[index * Ints + 2];

    /// <summary>The rows that it computes, among the first <see cref="Count"/>.</summary>
    public readonly uint Own = (uint)ints[index * Ints + 3];

    /// <summary>Keys that all rows see: places 0 to Shared - 1 from the block's start.</summary>
    public readonly int Shared = ints[index * Ints + 4];

    /// <summary>The place of the first new key; the others follow it.</summary>
    public readonly int Place = ints[index * Ints + 5];

    /// <summary>Where a moving entry's first row is in it; negative: the rows are nodes of a tree.</summary>
    public readonly int First = ints[index * Ints + 6];

    /// <summary>The first row's node in its tree.</summary>
    public int Node => ~First;

    /// <summary>Keys that a tile has scores for: the shared ones, then its rows or the nodes up to its last row.</summary>
    public int Keys => Shared + Count + (First >= 0 ? 0 : Node);
}

/// <summary>Eight rows of a tile of an entry that moves; one that begins past the tile's end has no rows, and stands for the first.</summary>
internal readonly struct FlashStrip
{
    public readonly int Slot;

    /// <summary>The tile's first row's place.</summary>
    public readonly int TilePlace;

    /// <summary>Its first row in the tile.</summary>
    public readonly int Row;

    public readonly int Rows;

    /// <summary>Its first row's token in the step, and place.</summary>
    public readonly int Token;

    public readonly int Place;

    public FlashStrip(FlashTile tile, int number)
    {
        int left = tile.Count - number * FlashTile.StripRows;
        Slot = tile.Slot;
        TilePlace = tile.Shared;
        Row = left > 0 ? number * FlashTile.StripRows : 0;
        Rows = left <= 0 ? 0 : left < FlashTile.StripRows ? left : FlashTile.StripRows;
        Token = tile.Token + Row;
        Place = tile.Shared + Row;
    }
}

/// <summary>How a launch's local weights lie: rows in a tile, keys that each tile has room for.</summary>
internal readonly struct FlashRows(int inTile, int mostKeys)
{
    public readonly int InTile = inTile;
    public readonly int MostKeys = mostKeys;
}
