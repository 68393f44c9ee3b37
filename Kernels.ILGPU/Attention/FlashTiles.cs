using System.Runtime.InteropServices;
using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>What a step asks of grouped attention, cut into tiles on the host; the same for all layers of a group size and window. Uploaded once a step.</summary>
/// <remarks>
/// A tile is neighbouring tokens of one entry and group. Trees work in their slots' memory, and so do up to eight tokens that end with their block or before. An entry that moves by more is a run:
/// its rows are laid out one group behind the other in scratch memory, a place of which each of its groups has as if it were a slot, so that all groups attend at once. A step has as many rounds as its runs need with so many groups
/// in scratch at once; where threads compute in patches, a run is walked through instead (<see cref="Walks"/>), and there is one round. A node of a tree that lies past the block's end is computed by itself (<see cref="Crossing"/>).
/// </remarks>
internal sealed class FlashTiles(IlgpuBackend backend, int groupSize, int window) : IDisposable
{
    private const int GroupsAtOnce = 32;

    private readonly DeviceArray<int> _device = new(backend);
    private readonly List<int> _ints = [], _crossing = [], _closing = [], _runs = [];
    private readonly List<FlashRound> _rounds = [];
    private long _stamp = -1, _losses;                      // whose step, and as many losses of queued work as there were then
    private int _tiles;

    /// <summary>Tokens between two block boundaries.</summary>
    public int GroupSize => groupSize;

    /// <summary>Values before a block that its tokens see.</summary>
    public int Window => window;

    /// <summary>Rows of all tiles, those past a tile's last token counted.</summary>
    public int Rows { get; private set; }

    /// <summary>Groups that scratch memory has room for, those of the windows before the runs counted.</summary>
    public int Places { get; private set; }

    /// <summary>Rounds, in order.</summary>
    public ReadOnlySpan<FlashRound> Rounds => CollectionsMarshal.AsSpan(_rounds);

    /// <summary>How many nodes of trees lie past their block's end.</summary>
    public int CrossingCount => _crossing.Count / FlashTile.CrossingInts;

    /// <summary>How many slots' groups are completed by others than runs.</summary>
    public int ClosingCount => _closing.Count;

    /// <summary>The tables of a step that has begun; built again where another step's are there.</summary>
    public ArrayView<int> View(Step step, AttentionState state)
    {
        if (_stamp != step.Stamp || _losses != backend.Losses)
        {
            (_stamp, _losses) = (-1, backend.Losses);
            Build(step, state);
            _stamp = step.Stamp;
        }

        return _device.First(_ints.Count);
    }

    /// <summary>The step's tokens past their block's end, each with its row among all tiles', the rows of its tile and its place among them.</summary>
    public ArrayView<int> Crossing => Part(FlashTile.Ints * _tiles, _crossing.Count);

    /// <summary>The slots whose groups are completed by others than runs.</summary>
    public ArrayView<int> Closing => Part(FlashTile.Ints * _tiles + _crossing.Count, _closing.Count);

    /// <summary>A round's runs (<see cref="FlashRun"/>).</summary>
    public ArrayView<int> Runs(FlashRound round) => Part(FlashTile.Ints * _tiles + _crossing.Count + _closing.Count + round.FirstRun * FlashRun.Ints, round.RunCount * FlashRun.Ints);

    /// <summary>How many entries are walked through, where threads attend in patches.</summary>
    public int WalkCount => backend.UsesPatches ? _runs.Count / FlashWalk.Ints : 0;

    /// <summary>These (<see cref="FlashWalk"/>).</summary>
    public ArrayView<int> Walks => Part(FlashTile.Ints * _tiles + _crossing.Count + _closing.Count, _runs.Count);

    public void Dispose() => _device.Dispose();

    private ArrayView<int> Part(int first, int count) => _device.First(_ints.Count).SubView(first, count);

    private void Build(Step step, AttentionState state)
    {
        foreach (List<int> list in (ReadOnlySpan<List<int>>)[_ints, _crossing, _closing, _runs]) list.Clear();
        _rounds.Clear();
        (Rows, Places) = (0, 0);
        int runs = 0, groups = 1;
        for (int e = 0; e < step.Entries; e++)
        {
            if (!IsRun(step[e], state)) continue;
            if (backend.UsesPatches)
            {
                ReadOnlySpan<int> walk = [step[e].Slot, step[e].Offset, step[e].Count, Tail(step[e], state)];
                _runs.AddRange(walk);
                continue;
            }

            runs++;
            groups = Math.Max(groups, (Tail(step[e], state) + step[e].Count - 1) / groupSize + 1);
        }

        int atOnce = Math.Max(1, GroupsAtOnce / Math.Max(1, runs));
        for (int first = 0; first < groups; first += atOnce) Round(first, atOnce, step, state);
        _tiles = _ints.Count / FlashTile.Ints;
        foreach (List<int> list in (ReadOnlySpan<List<int>>)[_crossing, _closing, _runs]) _ints.AddRange(list);
        _device.Upload(CollectionsMarshal.AsSpan(_ints));
    }

    /// <summary>Whether an entry's rows go to scratch: a tile's tokens within one block do not.</summary>
    private bool IsRun(StepEntry entry, AttentionState state) => entry.Moves && entry.Count > (Tail(entry, state) + entry.Count <= groupSize ? FlashTile.TreeRows : 1);

    private int Tail(StepEntry entry, AttentionState state) => state.Length(entry.Slot) % groupSize;

    private void Round(int firstGroup, int groups, Step step, AttentionState state)
    {
        int firstRun = _runs.Count / FlashRun.Ints;
        FlashTileRange one = default, trees = default;
        if (firstGroup == 0)
        {
            one = InSlots(step, state, single: true);
            trees = InSlots(step, state, single: false);
        }

        if (backend.UsesPatches)
        {
            _rounds.Add(new FlashRound(one, default, trees, 0, 0));
            return;
        }

        int firstTile = _ints.Count / FlashTile.Ints, place = 0;
        for (int e = 0; e < step.Entries; e++)
            if (IsRun(step[e], state)) place = Run(step[e], state, firstGroup, groups, place);
        Places = Math.Max(Places, place);
        _rounds.Add(new FlashRound(one, Range(firstTile, groupSize), trees, firstRun, _runs.Count / FlashRun.Ints - firstRun));
    }

    private FlashTileRange Range(int first, int most) => new(first, _ints.Count / FlashTile.Ints - first, most);

    /// <summary>The tiles of single tokens, or of trees and of a few tokens within one block.</summary>
    private FlashTileRange InSlots(Step step, AttentionState state, bool single)
    {
        int firstTile = _ints.Count / FlashTile.Ints, most = 0, rows = single ? 1 : FlashTile.TreeRows;
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            if (entry.Count == 0 || IsRun(entry, state) || (entry.Count == 1 && !backend.UsesPatches) != single) continue;
            int tail = Tail(entry, state);
            if (entry.Moves && tail + entry.Count == groupSize) _closing.Add(entry.Slot);
            for (int row = 0; row < entry.Count; row += rows)
            {
                int count = Math.Min(rows, entry.Count - row);
                uint own = entry.Moves ? uint.MaxValue : Within(entry, row, count, rows, tail);
                Add(entry.Slot, entry.Offset + row, count, own, tail, entry.Moves ? tail : groupSize, entry.Moves ? row : ~row, rows);
                most = Math.Max(most, entry.Moves ? groupSize : groupSize + row + count);
            }
        }

        return Range(firstTile, most);
    }

    /// <summary>A run's groups from one on, in scratch from a place on; where the next run's may begin.</summary>
    private int Run(StepEntry entry, AttentionState state, int firstGroup, int groups, int place)
    {
        int tail = Tail(entry, state), from = Math.Max(0, firstGroup * groupSize - tail), to = Math.Min(entry.Count, (firstGroup + groups) * groupSize - tail);
        if (from >= to) return place;
        place += (Math.Max(window, FlashTerms.Values(window + 1)) + groupSize - 1) / groupSize;
        int before = firstGroup == 0 ? tail : 0, rows = before + to - from, complete = rows / groupSize;
        ReadOnlySpan<int> run = [entry.Slot, place, complete, before, rows % groupSize];
        _runs.AddRange(run);
        for (int at = before; at < rows;)
        {
            int inGroup = at % groupSize, count = Math.Min(Math.Min(FlashTile.RunRows, groupSize - inGroup), rows - at);
            Add(place + at / groupSize, entry.Offset + from + at - before, count, uint.MaxValue, inGroup, inGroup, from + at - before, FlashTile.RunRows);
            at += count;
        }

        return place + complete + 1;
    }

    private void Add(int slot, int token, int count, uint own, int shared, int place, int first, int rows)
    {
        ReadOnlySpan<int> tile = [slot, token, count, unchecked((int)own), shared, place, first, Rows];
        _ints.AddRange(tile);
        Rows += rows;
    }

    /// <summary>Which rows of a tile of a tree lie before the block's end; the others are listed as crossing, once.</summary>
    private uint Within(StepEntry entry, int row, int count, int rows, int tail)
    {
        uint within = 0;
        for (int r = 0; r < count; r++)
        {
            if (tail + entry.Tree.Depth(row + r) < groupSize)
            {
                within |= 1u << r;
                continue;
            }

            ReadOnlySpan<int> crossing = [entry.Offset + row + r, Rows, rows, r];
            _crossing.AddRange(crossing);
        }

        return within;
    }
}

/// <summary>Tiles of one kind that a round has.</summary>
/// <param name="First">The first one's index.</param>
/// <param name="Count">How many.</param>
/// <param name="MostKeys">As many keys as the one that has most may have at any length, so that scratch does not grow from token to token.</param>
internal readonly record struct FlashTileRange(int First, int Count, int MostKeys);

/// <summary>One round of a step.</summary>
/// <param name="One">Tiles of entries of one token, all in the first round.</param>
/// <param name="Runs">Tiles of runs.</param>
/// <param name="Trees">Tiles of trees and of a few tokens, all in the first round.</param>
/// <param name="FirstRun">The first of its runs among all rounds'.</param>
/// <param name="RunCount">How many they are.</param>
internal readonly record struct FlashRound(FlashTileRange One, FlashTileRange Runs, FlashTileRange Trees, int FirstRun, int RunCount);

/// <summary>One tile as kernels see it.</summary>
internal readonly struct FlashTile
{
    public const int Ints = 8;

    /// <summary>Ints of a node past its block's end.</summary>
    public const int CrossingInts = 4;

    /// <summary>Rows of a tile of a run.</summary>
    public const int RunRows = 32;

    /// <summary>Rows of a tile of a tree.</summary>
    public const int TreeRows = 8;

    /// <summary>Rows of a run which are finished together.</summary>
    public const int StripRows = 8;

    /// <summary>Strips of a tile.</summary>
    public const int Strips = RunRows / StripRows;

    public FlashTile(ArrayView<int> ints, int index)
    {
        Slot = ints[index * Ints];
        Token = ints[index * Ints + 1];
        Count = ints[index * Ints + 2];
        Own = (uint)ints[index * Ints + 3];
        Shared = ints[index * Ints + 4];
        Place = ints[index * Ints + 5];
        First = ints[index * Ints + 6];
        Row = ints[index * Ints + 7];
    }

    /// <summary>Rows that see all rows before them in their block.</summary>
    public FlashTile(int slot, int token, int count, int place)
    {
        Slot = slot;
        Token = token;
        Count = count;
        Own = 0xFFFFFFFF;
        Shared = place;
        Place = place;
        First = 0;
        Row = 0;
    }

    /// <summary>The slot that its rows and S lie in; a run's group has one in scratch memory.</summary>
    public readonly int Slot;

    /// <summary>Its first row's token in the step.</summary>
    public readonly int Token;

    public readonly int Count;

    /// <summary>The rows that it computes, among the first <see cref="Count"/>.</summary>
    public readonly uint Own;

    /// <summary>Keys that all rows see: places 0 to Shared - 1 from the block's start.</summary>
    public readonly int Shared;

    /// <summary>The place of the first new key; the others follow it.</summary>
    public readonly int Place;

    /// <summary>Where a moving entry's first row is in it; negative: the rows are nodes of a tree.</summary>
    public readonly int First;

    /// <summary>Rows of the tiles before it: where its queries lie.</summary>
    public readonly int Row;

    /// <summary>True where each row sees all rows before it.</summary>
    public bool Moves => First >= 0;

    /// <summary>The first row's node in its tree.</summary>
    public int Node => Moves ? 0 : ~First;

    /// <summary>Keys that a tile has scores for: the shared ones, then its rows or the nodes up to its last row.</summary>
    public int Keys => Shared + Count + Node;
}

/// <summary>One run in one round.</summary>
internal readonly struct FlashRun(ArrayView<int> ints, int index)
{
    public const int Ints = 5;

    public readonly int Slot = ints[index * Ints];

    /// <summary>Where its first group lies in scratch memory.</summary>
    public readonly int Place = ints[index * Ints + 1];

    /// <summary>Groups that it completes.</summary>
    public readonly int Complete = ints[index * Ints + 2];

    /// <summary>Rows of the first group that the slot had.</summary>
    public readonly int Before = ints[index * Ints + 3];

    /// <summary>Rows of the last group that the slot will have.</summary>
    public readonly int After = ints[index * Ints + 4];
}

/// <summary>Eight rows of a run's tile; one that begins past the tile's end has no rows, and stands for the first.</summary>
internal readonly struct FlashStrip
{
    public readonly int Slot;

    /// <summary>Its first row in the tile.</summary>
    public readonly int Row;

    public readonly int Rows;

    /// <summary>Its first row's token in the step, and place.</summary>
    public readonly int Token;

    public readonly int Place;

    public FlashStrip(FlashTile tile, int number)
    {
        int left = tile.Count - number * FlashTile.StripRows, row = left > 0 ? number * FlashTile.StripRows : 0;
        Row = row;
        Slot = tile.Slot;
        Rows = left <= 0 ? 0 : left < FlashTile.StripRows ? left : FlashTile.StripRows;
        Token = tile.Token + row;
        Place = tile.Shared + row;
    }
}

/// <summary>How a launch's local weights lie: rows in a tile, keys that each tile has room for.</summary>
internal readonly struct FlashRows(int inTile, int mostKeys)
{
    public readonly int InTile = inTile;
    public readonly int MostKeys = mostKeys;
}
