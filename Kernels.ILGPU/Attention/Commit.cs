using System.Runtime.InteropServices;
using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, StepView, CommitView>? _checkPaths;

    /// <inheritdoc/>
    protected override void CommitCore(AttentionState state, Step step, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(state);
        state.CommitUnread(step, accepted);
    }

    /// <summary>Finds how long each entry's accepted path is, or that its row is none.</summary>
    internal void CheckPaths(Step step, StepView view, CommitView commit) => Load(ref _checkPaths, CheckPathsKernel)(Stream, step.Entries, view, commit);

    // One thread an entry: down its row, as AttentionState.RequirePath goes. What a row says first is its fault.
    private static void CheckPathsKernel(Index1D entry, StepView step, CommitView commit)
    {
        int offset = step.Offset(entry), nodes = step.Count(entry), moves = step.Moves(entry), count = 0, last = -1, fault = 0, wrong = -1;
        bool ended = false;
        for (int depth = 0; depth < commit.Width; depth++)
        {
            int node = commit.Node(entry, depth), found = (int)PathFault.None;
            if (node == -1) ended = true;
            else if (ended) found = (int)PathFault.Gap;
            else if (moves != 0) found = (int)PathFault.Moves;
            else if (node < 0 || node >= nodes) found = (int)PathFault.NotAChild;
            else if (step.Depth(offset + node) != depth) found = (int)PathFault.NotAChild;
            else if (depth > 0 && step.Ancestor(offset + node, depth - 1) - offset != last) found = (int)PathFault.NotAChild;
            if (fault == 0 && found != 0)
            {
                fault = found;
                wrong = node;
            }

            if (fault == 0 && node != -1)
            {
                last = node;
                count++;
            }
        }

        commit.Set(entry, fault == 0 ? count : 0, fault, wrong, last);
    }
}

/// <summary>What a commit's kernels look up: the accepted paths, how far each entry's goes, and the most that the host knows of it.</summary>
internal sealed class CommitTables(IlgpuBackend backend) : IDisposable
{
    private readonly DeviceArray<int> _accepted = new(backend), _paths = new(backend), _closing = new(backend);
    private int[] _host = [], _most = [];

    /// <summary>The tables of the commit in progress.</summary>
    public CommitView View { get; private set; }

    /// <summary>The longest that each entry's path may be.</summary>
    public ReadOnlySpan<int> Most => _most;

    /// <summary>Slots, one an entry, of which a kernel says whether their block is complete.</summary>
    public ArrayView<int> Closing { get; private set; }

    /// <summary>Makes room for the commit of a step.</summary>
    public void Reserve(Step step)
    {
        _accepted.Reserve((long)step.Entries * Levels(step));
        _paths.Reserve((long)step.Entries * CommitView.PathInts);
        _closing.Reserve(step.Entries);
        if (_most.Length < step.Entries) _most = new int[2 * step.Entries];
    }

    /// <summary>Takes paths of the host, which has checked them.</summary>
    public void Upload(Step step, ReadOnlySpan<int> accepted)
    {
        int levels = Levels(step);
        if (_host.Length < step.Entries * levels) _host = new int[2 * step.Entries * levels];
        for (int e = 0; e < step.Entries; e++)
        {
            ReadOnlySpan<int> row = accepted.Slice(e * step.MaxDepth, step.MaxDepth);
            row[..levels].CopyTo(_host.AsSpan(e * levels));
            _most[e] = row.IndexOf(-1) is var end && end < 0 ? row.Length : end;
        }

        Use(step, _accepted.Upload(_host.AsSpan(0, step.Entries * levels)), levels, levels);
    }

    /// <summary>Takes paths of the device. (A step that verifies nothing has rows too, and they may be wrong.)</summary>
    public void Use(Step step, DeviceTensor accepted)
    {
        for (int e = 0; e < step.Entries; e++) _most[e] = step[e].Moves ? 0 : step[e].Tree.Levels;
        Use(step, IlgpuBackend.Elements<int>(accepted), accepted.RowStride, step.MaxDepth);
    }

    /// <summary>What became of each entry's path, after the kernel that found out.</summary>
    public void Read(Span<CommittedPath> paths)
    {
        if (_host.Length < paths.Length * CommitView.PathInts) _host = new int[2 * paths.Length * CommitView.PathInts];
        Span<int> ints = _host.AsSpan(0, paths.Length * CommitView.PathInts);
        _paths.Download(ints);
        MemoryMarshal.Cast<int, CommittedPath>(ints).CopyTo(paths);
    }

    public void Dispose()
    {
        _accepted.Dispose();
        _paths.Dispose();
        _closing.Dispose();
    }

    private void Use(Step step, ArrayView<int> accepted, long stride, int width)
    {
        View = new CommitView(accepted, stride, width, _paths.First((long)step.Entries * CommitView.PathInts));
        Closing = _closing.First(step.Entries);
    }

    /// <summary>The deepest verified tree's levels.</summary>
    private static int Levels(Step step)
    {
        int levels = 0;
        for (int e = 0; e < step.Entries; e++)
            if (!step[e].Moves) levels = Math.Max(levels, step[e].Tree.Levels);
        return levels;
    }
}

/// <summary>A commit as kernels see it: nodes <c>[entries, width]</c>, rows a stride apart, and what was found of each row.</summary>
internal readonly struct CommitView(ArrayView<int> accepted, long stride, int width, ArrayView<int> paths)
{
    /// <summary>Ints a path: those of a <see cref="CommittedPath"/>.</summary>
    public const int PathInts = 4;

    public readonly ArrayView<int> Accepted = accepted;
    public readonly long Stride = stride;
    public readonly ArrayView<int> Paths = paths;
    public readonly int Width = width;

    public int Node(int entry, int depth) => Accepted[entry * Stride + depth];

    public int Count(int entry) => Paths[entry * PathInts];

    public void Set(int entry, int count, int fault, int node, int last)
    {
        Paths[entry * PathInts] = count;
        Paths[entry * PathInts + 1] = fault;
        Paths[entry * PathInts + 2] = node;
        Paths[entry * PathInts + 3] = last;
    }
}
