using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Every backend against the oracle, and the variants of one backend against each other, over whole lives of sequences.</summary>
public class AgreementTests
{
    private const int QuickSeeds = 15, FullSeeds = 80;

    public static TheoryData<string, int> Quick => new(from attention in Attending from seed in Enumerable.Range(0, QuickSeeds) select (attention, seed));

    public static TheoryData<string> All => [.. Attending];

    private static IEnumerable<string> Attending => Attentions.All.Select(attention => attention.Name);

    [Theory, MemberData(nameof(Quick))]
    public void Every_backend_and_variant_is_close_to_the_oracle(string attention, int seed) => CloseToOracle(attention, seed);

    [Theory, MemberData(nameof(Quick))]
    public void Narrow_inputs_are_close_to_the_oracle_on_the_same_rounded_inputs(string attention, int seed) => Narrow(attention, seed);

    [Theory, MemberData(nameof(Quick))]
    public void The_number_of_threads_changes_nothing(string attention, int seed) => Threads(attention, seed);

    // Squares of such numbers leave float32's range; q̂ and k̂ do not.
    [Theory]
    [InlineData(1e-22f)]
    [InlineData(1e-40f)]
    [InlineData(3e19f)]
    [InlineData(2e38f)]
    public void Queries_and_keys_of_any_size_are_normalised(float scale)
    {
        AttentionSpec spec = AttentionSpec.LocalGlobal(3, 1, 37, 16, valueDim: 5);
        Tokens plain = Tokens.Random(new Random(6), spec, 40);
        float largest = plain.Query.Concat(plain.Key).Max(MathF.Abs);
        Tokens tokens = new(spec, plain.Count, Array.ConvertAll(plain.Query, x => x / largest * scale), Array.ConvertAll(plain.Key, x => x / largest * scale), plain.Value);
        double[]? want = null;
        foreach (string name in BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants))
        {
            using KernelBackend backend = BackendsUnderTest.Open(name);
            using var rig = new AttentionRig(backend, [spec]);
            double[] got = rig.Run(Feed.Advance(0, tokens))[0];
            Close.To(want ??= got, got, Close.Attention, $"{name}, {scale}");
        }
    }

    [Theory, MemberData(nameof(All)), Trait("tier", "full")]
    public void All_of_it_for_many_seeds(string attention)
    {
        for (int seed = 1000; seed < 1000 + FullSeeds; seed++)
        {
            CloseToOracle(attention, seed);
            Narrow(attention, seed);
            Threads(attention, seed);
        }
    }

    private static void CloseToOracle(string attention, int seed)
    {
        List<double[]> want = Play("oracle", attention, seed);
        foreach (string name in BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants).Where(name => name != "oracle"))
            AreClose(want, Play(name, attention, seed), Close.Attention, $"{name}: {new Scenario(attention, seed)}");
    }

    private static void Narrow(string attention, int seed)
    {
        foreach ((ElementType type, double tolerance) in new[] { (ElementType.BFloat16, Close.BFloat16), (ElementType.Float16, Close.Float16) })
        {
            List<double[]> want = Play("oracle", attention, seed, type);
            foreach (string name in BackendsUnderTest.Names.Where(name => name != "oracle"))
                AreClose(want, Play(name, attention, seed, type), tolerance, $"{name}, {type}: {new Scenario(attention, seed)}");
        }
    }

    private static void Threads(string attention, int seed)
    {
        List<double[]> two = Play("cpu", attention, seed);
        foreach (string name in (string[])["cpu/1 thread", "cpu/3 threads"])
            foreach ((double[] want, double[] got) in two.Zip(Play(name, attention, seed))) Close.SameBits(want, got, $"{name}: {new Scenario(attention, seed)}");
    }

    private static List<double[]> Play(string name, string attention, int seed, ElementType inputType = ElementType.Float32)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        var scenario = new Scenario(attention, seed);
        using AttentionRig rig = scenario.Rig(backend, inputType);
        return scenario.Play(rig);
    }

    private static void AreClose(List<double[]> want, List<double[]> got, double tolerance, string what)
    {
        Assert.Equal(want.Count, got.Count);
        for (int i = 0; i < want.Count; i++) Close.To(want[i], got[i], tolerance, $"{what}: output {i}");
    }
}
