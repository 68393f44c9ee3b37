using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>A step's topology in device memory: what every layer's kernels look up. Uploaded once a step.</summary>
internal sealed class StepTables(IlgpuBackend backend) : IDisposable
{
    private readonly DeviceArray<int> _ints = new(backend);
    private int[] _host = [];
    private long _stamp = -1, _losses;                      // whose step, and as many losses of queued work as there were then

    /// <summary>The tables of a step that has begun; built again where another step's are there.</summary>
    public StepView View(Step step, AttentionState state)
    {
        if (!Are(step))
        {
            (_stamp, _losses) = (-1, backend.Losses);
            Upload(step, state);
            _stamp = step.Stamp;
        }

        return View(step);
    }

    /// <summary>True where the tables are a begun step's.</summary>
    public bool Are(Step step) => _stamp == step.Stamp && _losses == backend.Losses;

    /// <summary>The tables of a step that may not have begun, for whoever needs no lengths; built again every time, for nothing tells one such step from another.</summary>
    public StepView WithoutLengths(Step step)
    {
        _stamp = -1;
        Upload(step, null);
        return View(step);
    }

    public void Dispose()
    {
        _ints.Dispose();
    }

    private StepView View(Step step)
    {
        (int entries, int tokens, int paths) = Ints(step);
        ArrayView<int> ints = _ints.First((long)entries + tokens + paths);
        return new StepView(Part(entries, tokens), Part(0, entries), Part(entries + tokens, paths));
        ArrayView<int> Part(int first, int count) => count == 0 ? default : ints.SubView(first, count);
    }

    private void Upload(Step step, AttentionState? state)
    {
        (int entryInts, int tokenInts, int pathInts) = Ints(step);
        Span<int> ints = Host(checked(entryInts + tokenInts + pathInts)), entries = ints[..entryInts], tokens = ints.Slice(entryInts, tokenInts), paths = ints[(entryInts + tokenInts)..];
        int path = 0;
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            ReadOnlySpan<int> row = [entry.Slot, entry.Offset, entry.Count, entry.Moves ? 1 : 0, state?.Length(entry.Slot) ?? 0, entry.LogitOffset, entry.LogitCount, 0];
            row.CopyTo(entries[(e * StepView.EntryInts)..]);
            bool listed = !entry.Moves && !entry.Tree.IsPath;
            for (int i = 0; i < entry.Count; i++)
            {
                ReadOnlySpan<int> token = [e, entry.Tree.Depth(i), listed ? path : -1, i];
                token.CopyTo(tokens[((entry.Offset + i) * StepView.TokenInts)..]);
                if (listed) path += entry.Tree.PathTo(i, paths[path..]);
            }
        }

        _ints.Upload(ints);
    }

    /// <summary>Ints of the entries, the tokens and the paths, which follow each other.</summary>
    private static (int Entries, int Tokens, int Paths) Ints(Step step) => checked((step.Entries * StepView.EntryInts, step.Tokens * StepView.TokenInts, PathInts(step)));

    private static int PathInts(Step step)
    {
        int count = 0;
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            if (entry.Moves || entry.Tree.IsPath) continue;
            for (int i = 0; i < entry.Count; i++) count += entry.Tree.Depth(i) + 1;
        }

        return count;
    }

    private Span<int> Host(int count)
    {
        if (_host.Length < count) _host = new int[Math.Max(count, 2 * _host.Length)];
        return _host.AsSpan(0, count);
    }
}

/// <summary>A step's tables as kernels see them.</summary>
internal readonly struct StepView(ArrayView<int> tokens, ArrayView<int> entries, ArrayView<int> paths)
{
    /// <summary>Ints a token: its entry, its depth, where its path begins in the list (-1: a path of the identity), its index in its entry.</summary>
    public const int TokenInts = 4;

    /// <summary>Ints an entry: slot, offset, count, moves, length before the step, first logit row, logit rows, and room.</summary>
    public const int EntryInts = 8;

    public readonly ArrayView<int> Tokens = tokens;
    public readonly ArrayView<int> Entries = entries;
    public readonly ArrayView<int> Paths = paths;

    public int Entry(int token) => Tokens[token * TokenInts];

    public int Depth(int token) => Tokens[token * TokenInts + 1];

    public int Slot(int entry) => Entries[entry * EntryInts];

    public int Offset(int entry) => Entries[entry * EntryInts + 1];

    public int Count(int entry) => Entries[entry * EntryInts + 2];

    public int Moves(int entry) => Entries[entry * EntryInts + 3];

    public int Length(int entry) => Entries[entry * EntryInts + 4];

    public int LogitOffset(int entry) => Entries[entry * EntryInts + 5];

    public int LogitCount(int entry) => Entries[entry * EntryInts + 6];

    /// <summary>A token's parent in its entry, -1 for a root.</summary>
    public int Parent(int token) => Depth(token) == 0 ? -1 : Ancestor(token, Depth(token) - 1) - Offset(Entry(token));

    /// <summary>The token (among all of the step) at a depth of another's path.</summary>
    public int Ancestor(int token, int depth)
    {
        int list = Tokens[token * TokenInts + 2], offset = Offset(Entry(token));
        return offset + (list < 0 ? depth : Paths[list + depth]);
    }
}
