using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>Op <c>attention</c>: causal grouped attention of one layer.</summary>
internal sealed class AttentionCase : GoldenCase
{
    private readonly GroupedAttention _attention;

    public AttentionCase(CaseFile file) : base(file)
    {
        _attention = GroupedKinds.Read(file);
        file.RequireOutputs("out");
        file.WarnOfUnread("q", "k", "v", "out", "conv_weight");
    }

    protected override IReadOnlyList<CaseOutput> Compute(KernelBackend backend, CaseOptions options, double tolerance, CancellationToken cancellation)
    {
        AttentionSpec spec = _attention.Spec;
        AttentionFeed.Rows rows = AttentionFeed.Rows.Read(File, "", spec);
        using var feed = new AttentionFeed(backend, _attention, rows.Tokens);
        float[] output = feed.Advance(rows, options, cancellation);
        return [new CaseOutput(CaseTensor.Of("out", output, rows.Tokens, spec.QueryHeads, spec.ValueDim), File.Find("out"), tolerance)];
    }
}
