namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void AcceptTypicalCore(Step step, DeviceTensor tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(step);
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentNullException.ThrowIfNull(logits);
        RequireIndices(tokens, logits.RowLength, nameof(tokens));
        ArgumentNullException.ThrowIfNull(accepted);
        var ids = new CpuIntegers(tokens);
        if (temperature == 0)
        {
            var largest = new CpuIntegers((int*)Threads.Shared(logits.Rows), 1);
            ForRows(logits.Rows, logits.RowLength, new ArgMaxOp(this, logits, largest));
            for (int i = 0; i < step.Entries; i++)
                AcceptChosen(step[i], step.MaxDepth, ids, largest, step[i].LogitOffset, accepted.Pointer<int>() + i * accepted.RowStride);
            return;
        }

        var job = new TypicalJob(this, step, ids, logits, temperature, threshold, alpha, accepted);
        Threads.For(step.Entries, ref job);
    }

    private readonly struct TypicalJob(CpuBackend backend, Step step, CpuIntegers tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted) : IJob
    {
        private readonly CpuRows _logits = new(logits);
        private readonly int* _accepted = accepted.Pointer<int>();
        private readonly nint _stride = (nint)accepted.RowStride;

        public void Run(int part, int worker)
        {
            StepEntry entry = step[part];
            var path = new Span<int>(_accepted + part * _stride, step.MaxDepth);
            path.Fill(-1);
            if (entry.Moves || entry.Count == 0) return;

            Span<double> likelihood = stackalloc double[entry.Count];          // Σ log p from node 0 on; NaN: not accepted
            likelihood.Fill(double.NaN);
            likelihood[0] = 0;
            for (int node = 0; node < entry.Count; node++)
                if (!double.IsNaN(likelihood[node])) Judge(entry, node, likelihood, worker);

            int best = 0;
            for (int node = 1; node < entry.Count; node++)
                if (!double.IsNaN(likelihood[node]) && IsBetter(entry.Tree, node, best, likelihood)) best = node;
            entry.Tree.PathTo(best, path);
        }

        /// <summary>Gives a node's accepted children their likelihood.</summary>
        private void Judge(in StepEntry entry, int node, Span<double> likelihood, int worker)
        {
            int first = node + 1;
            while (first < entry.Count && entry.Tree.Parent(first) != node) first++;
            if (first == entry.Count) return;               // a leaf: its logits are not looked at

            int count = _logits.Length;
            float* scratch = backend.Threads.Scratch(worker, 2 * (nint)count);
            float* x = _logits.Row(entry.LogitOffset + node, backend.Kernels, scratch), weights = scratch + count;
            double total = backend.Weights(x, count, backend.Kernels.Max(x, count), temperature, weights);
            double least = Math.Min(threshold, alpha * Math.Exp(-Entropy(weights, count, total)));
            for (int child = first; child < entry.Count; child++)
            {
                if (entry.Tree.Parent(child) != node) continue;
                double p = weights[tokens[entry.Offset + child]] / total;
                if (p > least) likelihood[child] = likelihood[node] + Math.Log(p);
            }
        }

        private static double Entropy(float* weights, int count, double total)
        {
            double entropy = 0;
            for (int i = 0; i < count; i++)
            {
                double p = weights[i] / total;
                entropy -= p * Math.Log(p + 1e-5);
            }

            return entropy;
        }

        /// <summary>Deeper, then likelier, then above the later leaf.</summary>
        private static bool IsBetter(TokenTree tree, int node, int than, Span<double> likelihood)
        {
            if (tree.Depth(node) != tree.Depth(than)) return tree.Depth(node) > tree.Depth(than);
            if (likelihood[node] != likelihood[than]) return likelihood[node] > likelihood[than];
            return LastLeaf(tree, node) > LastLeaf(tree, than);
        }

        private static int LastLeaf(TokenTree tree, int node)
        {
            int last = tree.Count - 1;
            while (!tree.IsOnPath(node, last)) last--;
            return last;                                    // the last node below it has no child
        }
    }
}
