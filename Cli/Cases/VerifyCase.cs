using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>Op <c>verify</c>: a prefix, a tree of tokens after it, the accepted path, some tokens after that.</summary>
internal sealed class VerifyCase : GoldenCase
{
    private readonly GroupedAttention _attention;
    private readonly TokenTree _tree;

    public VerifyCase(CaseFile file) : base(file)
    {
        _attention = GroupedKinds.Read(file);
        file.RequireOutputs("out", "next_out");
        file.WarnOfUnread("q", "k", "v", "prefix_q", "prefix_k", "prefix_v", "next_q", "next_k", "next_v", "parent", "accepted", "out", "next_out", "reference_out", "conv_weight");
        _tree = file.Find("parent") is { } parent ? TokenTree.FromParents(parent.ToInt32()) : TokenTree.FromChoices(file.Choices());
    }

    protected override IReadOnlyList<CaseOutput> Compute(KernelBackend backend, CaseOptions options, double tolerance, CancellationToken cancellation)
    {
        AttentionSpec spec = _attention.Spec;
        bool hasPrefix = File.Has("prefix_q"), hasNext = File.Outputs is null ? File.Has("next_q") : Wants("next_out");
        AttentionFeed.Rows nodes = AttentionFeed.Rows.Read(File, "", spec);
        AttentionFeed.Rows prefix = hasPrefix ? AttentionFeed.Rows.Read(File, "prefix_", spec) : default;
        AttentionFeed.Rows next = hasNext ? AttentionFeed.Rows.Read(File, "next_", spec) : default;
        if (nodes.Tokens != _tree.Count) throw ToolException.Input($"{Path}: parent: expected {nodes.Tokens} nodes like q, got {_tree.Count}");
        if (File.Whole("prefix_len", prefix.Tokens) is var length && length != prefix.Tokens)
            throw ToolException.Input($"{Path}: prefix_q: expected prefix_len {length} tokens, got {prefix.Tokens}");
        int[] accepted = hasNext ? File.Require("accepted").ToInt32() : [];

        using var feed = new AttentionFeed(backend, _attention, prefix.Tokens + _tree.Levels + next.Tokens);
        feed.Advance(prefix, options, cancellation);
        float[] output = feed.VerifyAndCommit(nodes, _tree, accepted);
        List<CaseOutput> outputs = [];
        if (Wants("out")) outputs.Add(new CaseOutput(CaseTensor.Of("out", output, nodes.Tokens, spec.QueryHeads, spec.ValueDim), File.Find("out"), tolerance));
        if (hasNext)
        {
            float[] after = feed.Advance(next, options, cancellation);
            outputs.Add(new CaseOutput(CaseTensor.Of("next_out", after, next.Tokens, spec.QueryHeads, spec.ValueDim), File.Find("next_out"), tolerance));
        }

        return outputs;
    }
}
