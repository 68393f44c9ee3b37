using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>Op <c>acceptance</c>: a tree from Medusa's choices, its candidates from the heads' logits, the path that a rule accepts.</summary>
internal sealed class AcceptanceCase : GoldenCase
{
    private static readonly string[] Known = ["parent", "depth", "attention_mask", "retrieve_indices", "tree_tokens", "accepted"];

    private readonly int[][] _choices;
    private readonly TokenTree _tree;
    private readonly float _temperature;

    public AcceptanceCase(CaseFile file) : base(file)
    {
        file.RequireOutputs(Known);
        file.WarnOfUnread([.. Known, "base_logits", "medusa_logits", "node_logits"]);
        _temperature = (float)file.Real("temperature", 0);
        Kind = file.Text("rule", _temperature == 0 ? "greedy" : "typical");
        if (Kind is not ("greedy" or "typical")) throw ToolException.Unsupported($"{file.Path}: rule {Kind} is unknown; expected greedy or typical");
        int[][] choices = file.Choices();
        _tree = TokenTree.FromChoices(choices);
        _choices = TokenTree.SortChoices(choices);
    }

    public override string Kind { get; }

    protected override IReadOnlyList<CaseOutput> Compute(KernelBackend backend, CaseOptions options, double tolerance, CancellationToken cancellation)
    {
        int nodes = _tree.Count;
        int[] parents = [.. Enumerable.Range(0, nodes).Select(_tree.Parent)];
        List<CaseTensor> computed = [];
        if (Wants("parent")) computed.Add(CaseTensor.Of("parent", parents, nodes));
        if (Wants("depth")) computed.Add(CaseTensor.Of("depth", [.. Enumerable.Range(0, nodes).Select(node => (long)_tree.Depth(node))], nodes));
        if (Wants("attention_mask")) computed.Add(CaseTensor.Of("attention_mask", Mask(), nodes, nodes));
        if (Wants("retrieve_indices")) computed.Add(RetrieveIndices(parents));
        // A case of the tree alone comes without logits.
        if (Wants("tree_tokens") || Wants("accepted"))
        {
            int[] tokens = Candidates(backend);
            if (Wants("tree_tokens")) computed.Add(CaseTensor.Of("tree_tokens", Array.ConvertAll(tokens, token => (long)token), nodes));
            int[] accepted = Wants("accepted") ? Accept(backend, tokens) : [];
            if (Wants("accepted")) computed.Add(CaseTensor.Of("accepted", accepted, accepted.Length));
        }

        return [.. computed.Select(tensor => new CaseOutput(tensor, File.Find(tensor.Name), tolerance))];
    }

    /// <summary>1 where a column's node is on the path of a row's.</summary>
    private int[] Mask()
    {
        int nodes = _tree.Count;
        var mask = new int[nodes * nodes];
        for (int i = 0; i < nodes; i++)
            for (int j = 0; j < nodes; j++) mask[i * nodes + j] = _tree.IsOnPath(j, i) ? 1 : 0;
        return mask;
    }

    /// <summary>Node 0 carries the base's best token, a choice c of length n the c[n-1]-th best of head n-1.</summary>
    private int[] Candidates(KernelBackend backend)
    {
        float[] best = File.Floats("base_logits");
        float[] guessed = File.Floats("medusa_logits", -1, best.Length);
        int heads = best.Length == 0 ? 0 : guessed.Length / best.Length;
        int topk = Math.Min(File.Whole("topk", 10), best.Length);
        if (topk < 1) throw ToolException.Input($"{Path}: topk: expected 1 or more, got {topk}");
        foreach (int[] choice in _choices)
        {
            if (choice.Length > heads || choice[^1] >= topk)
                throw ToolException.Input($"{Path}: choices: [{string.Join(", ", choice)}] needs more than {heads} heads or the best {topk} tokens");
        }

        var tokens = new int[_tree.Count];
        using (DeviceTensor logits = backend.Upload<float>(best, 1, best.Length))
        using (DeviceTensor token = backend.Allocate(ElementType.Int32, 1))
        {
            backend.ArgMax(logits, token);
            tokens[0] = backend.Download<int>(token)[0];
        }

        if (_choices.Length == 0) return tokens;
        using DeviceTensor guesses = backend.Upload<float>(guessed, heads, best.Length);
        using DeviceTensor values = backend.Allocate(ElementType.Float32, heads, topk);
        using DeviceTensor indices = backend.Allocate(ElementType.Int32, heads, topk);
        backend.TopK(guesses, values, indices);
        int[] ranked = backend.Download<int>(indices);
        for (int i = 0; i < _choices.Length; i++) tokens[i + 1] = ranked[(_choices[i].Length - 1) * topk + _choices[i][^1]];
        return tokens;
    }

    private int[] Accept(KernelBackend backend, int[] tokens)
    {
        float[] stored = File.Floats("node_logits", _tree.Count, -1);
        var step = new Step();
        step.Verify(0, _tree);
        using DeviceTensor logits = backend.Upload<float>(stored, _tree.Count, stored.Length / _tree.Count);
        using DeviceTensor nodes = backend.Upload<int>(tokens, tokens.Length);
        using DeviceTensor accepted = backend.Allocate(ElementType.Int32, 1, step.MaxDepth);
        if (Kind == "greedy")
        {
            using DeviceTensor chosen = backend.Allocate(ElementType.Int32, tokens.Length);
            using DeviceTensor next = backend.Allocate(ElementType.Int32, 1);
            backend.ArgMax(logits, chosen);
            backend.Accept(step, nodes, chosen, accepted, next);
        }
        else
        {
            backend.AcceptTypical(step, nodes, logits, _temperature, (float)File.Real("posterior_threshold", 0.09), (float)File.Real("posterior_alpha", 0.3), accepted);
        }

        return [.. backend.Download<int>(accepted).TakeWhile(node => node >= 0)];
    }

    /// <summary>One row a leaf, last leaf first: its path from the root, padded with -1.</summary>
    private CaseTensor RetrieveIndices(int[] parents)
    {
        List<long> rows = [];
        int leaves = 0;
        Span<int> path = stackalloc int[_tree.Levels];
        for (int node = _tree.Count - 1; node >= 0; node--)
        {
            if (parents.AsSpan(node + 1).Contains(node)) continue;
            leaves++;
            int count = _tree.PathTo(node, path);
            for (int i = 0; i < path.Length; i++) rows.Add(i < count ? path[i] : -1);
        }

        return CaseTensor.Of("retrieve_indices", [.. rows], leaves, _tree.Levels);
    }
}
