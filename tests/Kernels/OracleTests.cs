using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The oracle's form with a state against its own stateless form: what everything else is measured by.</summary>
public class OracleTests
{
    private const double Tolerance = 1e-12;

    public static TheoryData<int> Seeds => [.. Enumerable.Range(0, 60)];

    [Theory, MemberData(nameof(Seeds))]
    public void Flash_with_a_state_is_the_direct_sum_over_the_path(int seed)
    {
        var random = new Random(seed);
        AttentionSpec spec = random.Flash(groupSize: random.Pick(1, 2, 3, 5, 8, 16, 17));
        Dictionary<string, float[]> weights = AttentionRig.Weights(spec, seed);
        double alpha = weights.TryGetValue("alpha", out float[]? factor) ? factor[0] : 1;
        double[] taps = weights.TryGetValue("taps", out float[]? filter) ? Close.Widen(filter) : [];
        Check(random, spec, weights, (query, keys, values) => OracleBackend.FlashStateless(spec, alpha, taps, query, keys, values));
    }

    [Theory, MemberData(nameof(Seeds))]
    public void Softmax_with_a_state_is_the_direct_sum_over_the_path(int seed)
    {
        var random = new Random(seed);
        AttentionSpec spec = random.Softmax();
        Check(random, spec, [], (query, keys, values) => OracleBackend.SoftmaxStateless(spec, query, keys, values));
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(0.1, 0.1124629160182849)]
    [InlineData(0.5, 0.5204998778130465)]
    [InlineData(1, 0.8427007929497149)]
    [InlineData(-2, -0.9953222650189527)]
    [InlineData(3.5, 0.9999992569016276)]
    [InlineData(5.9, 0.9999999999999999)]
    [InlineData(7, 1)]
    public void The_error_function_has_its_known_values(double x, double want) => Assert.Equal(want, OracleBackend.Erf(x), 1e-15);

    private static void Check(Random random, AttentionSpec spec, Dictionary<string, float[]> weights, Func<double[], List<double[]>, List<double[]>, double[]> direct)
    {
        using var backend = new OracleBackend();
        using var rig = new AttentionRig(backend, [spec], weights: [weights], outputType: ElementType.Float64);
        Tokens prefix = Tokens.Random(random, spec, random.Next(0, 60));
        TokenTree tree = random.Tree(random.Next(1, 60));
        Tokens nodes = Tokens.Random(random, spec, tree.Count);
        double[] advanced = [.. rig.Advance(0, prefix, random.Cut(prefix.Count, 25)).SelectMany(output => output)];
        double[] verified = rig.Run(Feed.Verify(0, tree, nodes))[0];

        int width = spec.QueryHeads * spec.ValueDim;
        for (int i = 0; i < prefix.Count; i++) Same(prefix.Range(0, i + 1), advanced.AsSpan(i * width, width), $"position {i}");
        var path = new int[tree.Levels];
        for (int i = 0; i < tree.Count; i++)
            Same(prefix.Then(nodes.At(path.AsSpan(0, tree.PathTo(i, path)))), verified.AsSpan(i * width, width), $"node {i}");

        void Same(Tokens tokens, ReadOnlySpan<double> got, string what)
        {
            (double[] Query, double[] Key, double[] Value)[] rows = [.. Enumerable.Range(0, tokens.Count).Select(tokens.Row)];
            Close.To(direct(rows[^1].Query, [.. rows.Select(row => row.Key)], [.. rows.Select(row => row.Value)]), got, Tolerance, $"{spec}: {what}");
        }
    }
}
