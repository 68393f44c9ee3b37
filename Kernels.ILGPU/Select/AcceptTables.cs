using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>A step's trees in device memory, as acceptance walks them.</summary>
internal sealed class AcceptTables(IlgpuBackend backend) : IDisposable
{
    private readonly DeviceArray<int> _entries = new(backend), _parents = new(backend), _scratch = new(backend);
    private readonly DeviceArray<float> _numbers = new(backend);
    private int[] _host = [];

    /// <summary>Uploads the tables of a step.</summary>
    public AcceptView View(Step step)
    {
        // The kernels count in 32 bits.
        if (3L * step.LogitCount + 2L * step.Tokens > int.MaxValue) throw new NotSupportedException($"a step of {step.Tokens} tokens and {step.LogitCount} logit rows is more than acceptance takes");
        if (_host.Length < Math.Max(step.Tokens, step.Entries * AcceptView.EntryInts)) _host = new int[2 * Math.Max(step.Tokens, step.Entries * AcceptView.EntryInts)];
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            ReadOnlySpan<int> row = [entry.Offset, entry.Moves ? 0 : entry.Count, entry.LogitOffset, entry.Moves ? entry.LogitCount - 1 : entry.Count == 0 ? -1 : 0];
            row.CopyTo(_host.AsSpan(e * AcceptView.EntryInts));
        }

        ArrayView<int> entries = _entries.Upload(_host.AsSpan(0, step.Entries * AcceptView.EntryInts));
        for (int e = 0; e < step.Entries; e++)
            for (int i = 0; i < step[e].Count; i++) _host[step[e].Offset + i] = step[e].Tree.Parent(i);
        ArrayView<int> parents = _parents.Upload(_host.AsSpan(0, step.Tokens));
        return new AcceptView(entries, parents, _scratch.Reserve(2L * step.Tokens), _numbers.Reserve(3L * step.LogitCount + step.Tokens), step.MaxDepth);
    }

    public void Dispose()
    {
        _entries.Dispose();
        _parents.Dispose();
        _scratch.Dispose();
        _numbers.Dispose();
    }
}

/// <summary>The tables as kernels see them.</summary>
internal readonly struct AcceptView(ArrayView<int> entries, ArrayView<int> parents, ArrayView<int> scratch, ArrayView<float> numbers, int maxDepth)
{
    /// <summary>Ints an entry: its first token, nodes (0 where it moves), its first logit row, which of its rows gives the next token where nothing is walked (-1: none).</summary>
    public const int EntryInts = 4;

    public readonly ArrayView<int> Entries = entries;
    public readonly ArrayView<int> Parents = parents;
    public readonly ArrayView<int> Scratch = scratch;
    public readonly ArrayView<float> Numbers = numbers;
    public readonly int MaxDepth = maxDepth;

    public int Offset(int entry) => Entries[entry * EntryInts];

    public int Count(int entry) => Entries[entry * EntryInts + 1];

    public int LogitOffset(int entry) => Entries[entry * EntryInts + 2];

    public int LastRow(int entry) => Entries[entry * EntryInts + 3];
}
