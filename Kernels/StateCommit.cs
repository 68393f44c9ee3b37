using System.Diagnostics;

namespace Treeline.Kernels;

// Verified entries move past their accepted paths: checked by the host before anything moves, or on the device, whose findings the host reads when it needs them.
public abstract partial class AttentionState
{
    private readonly List<(int Slot, int Nodes)> _unread = [];     // entries of a commit whose outcome lies on the device
    private CommittedPath[] _committed = [];

    /// <summary>Appends the accepted paths of a verified step, all layers; the lengths move afterwards.</summary>
    /// <param name="step">The step that verified them.</param>
    /// <param name="accepted"><c>[entries, step.MaxDepth]</c>, checked; at least one path has a node. <see cref="PathOf"/> gives an entry's.</param>
    protected abstract void CommitCore(Step step, ReadOnlySpan<int> accepted);

    /// <summary>As the other, with paths that nobody has checked and the host does not see: checks them where they lie; an entry whose row is no path moves nothing. A backend that sends commits here has it.</summary>
    private protected virtual void CommitUnreadCore(Step step, DeviceTensor accepted) => throw new UnreachableException();

    /// <summary>Reads what <see cref="CommitUnreadCore"/> found, entry by entry; waits for it.</summary>
    private protected virtual void ReadCommittedCore(Span<CommittedPath> paths) => throw new UnreachableException();

    /// <summary>One entry's row of accepted paths, without what pads it.</summary>
    /// <param name="step">The step.</param>
    /// <param name="entry">The entry's index.</param>
    /// <param name="accepted"><c>[entries, step.MaxDepth]</c>.</param>
    protected static ReadOnlySpan<int> PathOf(Step step, int entry, ReadOnlySpan<int> accepted)
    {
        ArgumentNullException.ThrowIfNull(step);
        ReadOnlySpan<int> row = accepted.Slice(entry * step.MaxDepth, step.MaxDepth);
        return row.IndexOf(-1) is var end && end < 0 ? row : row[..end];
    }

    internal void CommitChecked(Step step, ReadOnlySpan<int> accepted)
    {
        Settle();
        RequireStep(step, Step.Phase.Completed);
        int width = step.MaxDepth;
        if (accepted.Length != step.Entries * width)
            throw new ArgumentException($"accepted: expected [{step.Entries}, {width}] int32, got {accepted.Length} numbers", nameof(accepted));
        for (int i = 0; i < step.Entries; i++) RequirePath(step[i], i, accepted.Slice(i * width, width));

        step.Status = Step.Phase.Committed;
        bool any = false;
        for (int i = 0; i < step.Entries; i++)
        {
            if (PathOf(step, i, accepted).IsEmpty) continue;
            _broken[step[i].Slot] = any = true;             // until the last layer has its rows
        }

        if (!any) return;
        CommitCore(step, accepted);
        for (int i = 0; i < step.Entries; i++)
        {
            ReadOnlySpan<int> path = PathOf(step, i, accepted);
            if (path.IsEmpty) continue;
            _lengths[step[i].Slot] += path.Length;
            _broken[step[i].Slot] = false;
        }
    }

    /// <summary>Commits paths that lie where the host does not see them; how far each slot has moved is read when somebody asks.</summary>
    internal void CommitUnread(Step step, DeviceTensor accepted)
    {
        Settle();
        RequireStep(step, Step.Phase.Completed);
        step.Status = Step.Phase.Committed;
        if (accepted.Count == 0) return;
        MarkVerified(step, broken: true);
        CommitUnreadCore(step, accepted);
        MarkVerified(step, broken: false);
        for (int i = 0; i < step.Entries; i++) _unread.Add((step[i].Slot, step[i].Count));
    }

    private void MarkVerified(Step step, bool broken)
    {
        for (int i = 0; i < step.Entries; i++)
            if (!step[i].Moves) _broken[step[i].Slot] = broken;
    }

    /// <summary>Reads how far a commit on the device moved its slots, and reports the rows that were no paths.</summary>
    private void Settle()
    {
        if (_unread.Count == 0) return;
        if (_committed.Length < _unread.Count) _committed = new CommittedPath[2 * _unread.Count];
        ReadCommittedCore(_committed.AsSpan(0, _unread.Count));
        string? faults = null;
        for (int i = 0; i < _unread.Count; i++)
        {
            CommittedPath path = _committed[i];
            _lengths[_unread[i].Slot] += path.Count;
            if (path.Fault != PathFault.None) faults = $"{(faults is null ? "accepted: " : faults + "; ")}{path.Describe(i, _unread[i].Nodes)}";
        }

        _unread.Clear();
#pragma warning disable CA2208                              // the argument of the commit that this call is the first to hear from
        if (faults is not null) throw new ArgumentException(faults, "accepted");
#pragma warning restore CA2208
    }

    private bool IsUnread(int slot)
    {
        foreach ((int unread, _) in _unread)
            if (unread == slot) return true;
        return false;
    }

    private static void RequirePath(StepEntry entry, int index, ReadOnlySpan<int> accepted)
    {
        int last = -1;
        for (int d = 0; d < accepted.Length; d++)
        {
            int node = accepted[d];
            PathFault fault = PathFault.None;
            if (node == -1)
            {
                if (!accepted[d..].ContainsAnyExcept(-1)) return;
                fault = PathFault.Gap;
            }
            else if (entry.Moves)
            {
                fault = PathFault.Moves;
            }
            else if ((uint)node >= (uint)entry.Count || entry.Tree.Parent(node) != last)
            {
                fault = PathFault.NotAChild;
            }

            if (fault != PathFault.None) throw new ArgumentException($"accepted: {new CommittedPath(0, fault, node, last).Describe(index, entry.Count)}", nameof(accepted));
            last = node;
        }
    }
}

/// <summary>Why a row of accepted nodes is no path of its entry's tree.</summary>
internal enum PathFault
{
    /// <summary>It is one.</summary>
    None,

    /// <summary>-1 before the path's end.</summary>
    Gap,

    /// <summary>The entry moves by itself.</summary>
    Moves,

    /// <summary>A node is no child of the one before it.</summary>
    NotAChild,
}

/// <summary>What became of one entry's row of accepted nodes.</summary>
/// <param name="Count">Nodes committed.</param>
/// <param name="Fault">Why none was, where the row is no path.</param>
/// <param name="Node">The node that does not fit.</param>
/// <param name="Last">The node before it, -1 at the path's start.</param>
internal readonly record struct CommittedPath(int Count, PathFault Fault, int Node, int Last)
{
    /// <summary>The fault in words, the same wherever it was found.</summary>
    public string Describe(int entry, int nodes) => Fault switch
    {
        PathFault.Gap => $"entry {entry}: -1 before the path's end",
        PathFault.Moves => $"entry {entry} moves by itself, its row must be -1 throughout, got {Node}",
        _ => $"entry {entry}: node {Node} is not a child of {Last} in its tree of {nodes} nodes",
    };
}
