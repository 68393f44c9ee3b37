namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void AcceptCore(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next)
    {
        ArgumentNullException.ThrowIfNull(step);
        ArgumentNullException.ThrowIfNull(accepted);
        var own = new CpuIntegers(chosen);
        var extra = new CpuIntegers(next);
        int* path = accepted.Pointer<int>();
        for (int i = 0; i < step.Entries; i++, path += accepted.RowStride)
        {
            StepEntry entry = step[i];
            int last = AcceptChosen(entry, step.MaxDepth, new CpuIntegers(tokens), own, entry.LogitOffset, path);
            if (entry.Moves) last = entry.LogitCount - 1;
            extra[i] = last < 0 ? -1 : own[entry.LogitOffset + last];
        }
    }

    /// <summary>The longest path whose every token is the one chosen after its parent, -1 padded; returns its last node.</summary>
    private static int AcceptChosen(in StepEntry entry, int maxDepth, CpuIntegers tokens, CpuIntegers chosen, int chosenOffset, int* path)
    {
        new Span<int>(path, maxDepth).Fill(-1);
        if (entry.Moves || entry.Count == 0) return -1;

        // Children come after their parents, so going backwards each node's best child is known when its own turn comes; the first of equals is seen last.
        Span<int> length = stackalloc int[entry.Count], child = stackalloc int[entry.Count];
        length.Fill(1);
        child.Fill(-1);
        for (int node = entry.Count - 1; node > 0; node--)
        {
            int parent = entry.Tree.Parent(node);
            if (parent < 0 || tokens[entry.Offset + node] != chosen[chosenOffset + parent] || length[node] + 1 < length[parent]) continue;
            length[parent] = length[node] + 1;
            child[parent] = node;
        }

        int last = 0;
        for (int node = 0; node >= 0; node = child[node]) *path++ = last = node;
        return last;
    }
}
