using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void AcceptCore(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next)
    {
        ArgumentNullException.ThrowIfNull(step);
        int[] ids = Integers(tokens), wanted = Integers(chosen);
        for (int i = 0; i < step.Entries; i++)
        {
            StepEntry entry = step[i];
            List<int> path = entry.Moves || entry.Count == 0 ? [] : Follow(entry, 0, ids, wanted);
            int last = entry.Moves ? entry.LogitCount - 1 : path.LastOrDefault(-1);
            Store(accepted, i, PaddedTo(step.MaxDepth, path));
            Store(next, i, [last < 0 ? -1 : wanted[entry.LogitOffset + last]]);
        }
    }

    /// <summary>The longest path from a node on whose every token is what the target chose after its parent; the first of equally long ones.</summary>
    private static List<int> Follow(StepEntry entry, int node, int[] tokens, int[] chosen)
    {
        List<int> longest = [];
        for (int child = node + 1; child < entry.Count; child++)
        {
            if (entry.Tree.Parent(child) != node || tokens[entry.Offset + child] != chosen[entry.LogitOffset + node]) continue;
            List<int> path = Follow(entry, child, tokens, chosen);
            if (path.Count > longest.Count) longest = path;
        }

        return [node, .. longest];
    }

    private static int[] PaddedTo(int width, List<int> path) => [.. path, .. Enumerable.Repeat(-1, width - path.Count)];
}
