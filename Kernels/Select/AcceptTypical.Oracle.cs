using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void AcceptTypicalCore(Step step, DeviceTensor tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(step);
        int[] ids = Integers(tokens);
        foreach (int id in ids)
            if ((uint)id >= (uint)logits.RowLength) throw new ArgumentException($"tokens: expected 0 to {logits.RowLength - 1}, got {id}", nameof(tokens));
        int[] greedy = temperature == 0 ? Array.ConvertAll(Rows(logits), Largest) : [];
        for (int i = 0; i < step.Entries; i++)
        {
            StepEntry entry = step[i];
            List<int> path = entry.Moves || entry.Count == 0 ? []
                : temperature == 0 ? Follow(entry, 0, ids, greedy)
                : Typical(entry, ids, logits, temperature, threshold, alpha);
            Store(accepted, i, PaddedTo(step.MaxDepth, path));
        }
    }

    private static List<int> Typical(StepEntry entry, int[] tokens, DeviceTensor logits, double temperature, double threshold, double alpha)
    {
        // What each node's parent says of its token.
        var probability = new double[entry.Count];
        var taken = new bool[entry.Count];
        for (int node = 0; node < entry.Count; node++)
        {
            double[] p = Probabilities(Array.ConvertAll(Row(logits, entry.LogitOffset + node), x => x / temperature));
            double entropy = 0;
            foreach (double x in p) entropy -= x * Math.Log(x + 1e-5);
            double least = Math.Min(threshold, alpha * Math.Exp(-entropy));
            for (int child = node + 1; child < entry.Count; child++)
            {
                if (entry.Tree.Parent(child) != node) continue;
                probability[child] = p[tokens[entry.Offset + child]];
                taken[child] = probability[child] > least;
            }
        }

        List<int> best = [0];
        double likeliest = double.NegativeInfinity;
        var path = new int[entry.Tree.Levels];
        for (int leaf = entry.Count - 1; leaf >= 0; leaf--)
        {
            bool isLeaf = !Enumerable.Range(leaf + 1, entry.Count - leaf - 1).Any(child => entry.Tree.Parent(child) == leaf);
            int depth = entry.Tree.PathTo(leaf, path), count = 1;
            if (!isLeaf || path[0] != 0) continue;
            double likelihood = 0;
            while (count < depth && taken[path[count]]) likelihood += Math.Log(probability[path[count++]]);
            if (count > best.Count || (count == best.Count && likelihood > likeliest)) (best, likeliest) = ([.. path[..count]], likelihood);
        }

        return best;
    }
}
