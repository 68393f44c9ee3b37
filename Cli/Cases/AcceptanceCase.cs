using System.Runtime.InteropServices;
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
        long[] depths = [.. Enumerable.Range(0, nodes).Select(node => (long)_tree.Depth(node))];
        var mask = new int[nodes * nodes];
        for (int i = 0; i < nodes; i++)
            for (int j = 0; j < nodes; j++) mask[i * nodes + j] = _tree.IsOnPath(j, i) ? 1 : 0;
        int[] tokens = Candidates(backend);
        int[] accepted = Accept(backend, tokens);
        int leaves = 0;
        long[] retrieve = RetrieveIndices(parents, ref leaves);

        CaseTensor[] computed =
        [
            CaseTensor.Of("parent", parents, nodes),
            CaseTensor.Of("depth", depths, nodes),
            CaseTensor.Of("attention_mask", mask, nodes, nodes),
            CaseTensor.Of("retrieve_indices", retrieve, leaves, _tree.Levels),
            CaseTensor.Of("tree_tokens", Array.ConvertAll(tokens, token => (long)token), nodes),
            CaseTensor.Of("accepted", accepted, accepted.Length),
        ];
        return [.. computed.Where(tensor => Wants(tensor.Name)).Select(tensor => new CaseOutput(tensor, File.Find(tensor.Name), tolerance))];
    }

    /// <summary>Node 0 carries the base's best token, a choice c of length n the c[n-1]-th best of head n-1.</summary>
    private int[] Candidates(KernelBackend backend)
    {
        float[] best = File.Require("base_logits").ToFloat32();
        CheckpointTensor heads = File.Require("medusa_logits", -1, best.Length);
        int topk = Math.Min(File.Whole("topk", 10), best.Length);
        if (topk < 1) throw ToolException.Input($"{Path}: topk: expected 1 or more, got {topk}");
        foreach (int[] choice in _choices)
        {
            if (choice.Length > heads.Shape[0] || choice[^1] >= topk)
                throw ToolException.Input($"{Path}: choices: [{string.Join(", ", choice)}] needs more than {heads.Shape[0]} heads or the best {topk} tokens");
        }

        var tokens = new int[_tree.Count];
        using (DeviceTensor logits = backend.Upload<float>(best, 1, best.Length))
        using (DeviceTensor token = backend.Allocate(ElementType.Int32, 1))
        {
            backend.ArgMax(logits, token);
            tokens[0] = backend.Download<int>(token)[0];
        }

        if (_choices.Length == 0) return tokens;
        using DeviceTensor guesses = backend.Upload<float>(heads.ToFloat32(), heads.Shape[0], best.Length);
        using DeviceTensor values = backend.Allocate(ElementType.Float32, heads.Shape[0], topk);
        using DeviceTensor indices = backend.Allocate(ElementType.Int32, heads.Shape[0], topk);
        backend.TopK(guesses, values, indices);
        int[] ranked = backend.Download<int>(indices);
        for (int i = 0; i < _choices.Length; i++) tokens[i + 1] = ranked[(_choices[i].Length - 1) * topk + _choices[i][^1]];
        return tokens;
    }

    private int[] Accept(KernelBackend backend, int[] tokens)
    {
        CheckpointTensor stored = File.Require("node_logits", _tree.Count, -1);
        var step = new Step();
        step.Verify(0, _tree);
        using DeviceTensor logits = backend.Upload<float>(stored.ToFloat32(), stored.Shape);
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
    private long[] RetrieveIndices(int[] parents, ref int leaves)
    {
        List<long> rows = [];
        Span<int> path = stackalloc int[_tree.Levels];
        for (int node = _tree.Count - 1; node >= 0; node--)
        {
            if (parents.AsSpan(node + 1).Contains(node)) continue;
            leaves++;
            int count = _tree.PathTo(node, path);
            for (int i = 0; i < path.Length; i++) rows.Add(i < count ? path[i] : -1);
        }

        return CollectionsMarshal.AsSpan(rows).ToArray();
    }
}
