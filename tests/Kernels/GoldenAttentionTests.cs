using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Recorded outputs of the reference code: grouped attention as one chunk, token by token, and on trees.</summary>
public class GoldenAttentionTests
{
    private const int SmallCase = 128 << 10;                // bytes of a file: what a backend for debugging computes in seconds
    private const int Taps = 32;                            // of the 63 recorded ones: the others look into the future

    public static TheoryData<string, string> AttentionCases => Cross(Golden.Cases("attention"));

    public static TheoryData<string, string> TreeCases => Cross(Golden.Cases("tree"));

    [Fact]
    public void Recordings_are_present()
    {
        Assert.NotEmpty(Directory.GetFiles(Golden.Copies, "*.safetensors", SearchOption.AllDirectories));
        if (!Directory.Exists(Golden.All)) Console.WriteLine($"golden: {Golden.All} is not present: checking the copies in tests/golden alone");
    }

    [Theory, MemberData(nameof(AttentionCases))]
    public void A_chunk_gives_what_the_reference_gives(string name, string file)
    {
        using var golden = new GoldenCase(file);
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, golden);
        double[] output = rig.Run(Feed.Advance(0, Read(golden, "")))[0];
        Close.To(Close.Widen(golden.Floats("out")), output, Tolerance(name), file);
    }

    [Theory, MemberData(nameof(AttentionCases))]
    public void So_does_one_token_at_a_time(string name, string file)
    {
        using var golden = new GoldenCase(file);
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, golden);
        Tokens tokens = Read(golden, "");
        int[] ones = [.. Enumerable.Repeat(1, tokens.Count)];
        Close.To(Close.Widen(golden.Floats("out")), [.. rig.Advance(0, tokens, ones).SelectMany(row => row)], Tolerance(name), file);
    }

    [Theory, MemberData(nameof(TreeCases))]
    public void A_tree_gives_what_each_path_gives_and_goes_on_from_the_accepted_one(string name, string file)
    {
        using var golden = new GoldenCase(file);
        TokenTree tree = TokenTree.FromParents(golden.Integers("parent"));
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, golden);
        rig.Run(Feed.Advance(0, Read(golden, "prefix_")));
        double[] output = rig.Run(Feed.Verify(0, tree, Read(golden, "")))[0];
        Close.To(Close.Widen(golden.Floats("out")), output, Tolerance(name), $"{file}: out");

        rig.Commit(0, golden.Integers("accepted"));
        double[] next = rig.Run(Feed.Advance(0, Read(golden, "next_")))[0];
        Close.To(Close.Widen(golden.Floats("next_out")), next, Tolerance(name), $"{file}: next_out");
    }

    internal static TheoryData<string, string> Cross(IEnumerable<string> cases) =>
        new(from file in cases from name in BackendsUnderTest.Names where !BackendsUnderTest.IsForDebugging(name) || new FileInfo(Golden.Locate(file)).Length < SmallCase select (name, file));

    private static double Tolerance(string name) => name == "oracle" ? Close.Oracle : Close.Attention;

    private static AttentionRig Rig(KernelBackend backend, GoldenCase golden)
    {
        AttentionSpec spec = Spec(golden);
        var weights = new Dictionary<string, float[]>();
        if (spec.HasAlpha) weights["alpha"] = [golden.Number("alpha")];
        if (spec.ConvTaps > 0)
        {
            float[] kernel = golden.Floats("conv_weight");
            weights["taps"] = [.. Enumerable.Range(0, spec.QueryHeads).SelectMany(h => Enumerable.Range(0, Taps).Select(t => kernel[h * 63 + Taps - 1 - t]))];
        }

        return new AttentionRig(backend, [spec], weights: [weights]);
    }

    private static AttentionSpec Spec(GoldenCase golden)
    {
        Assert.Contains(golden["op"], new[] { "attention", "verify" });
        bool global = golden.Number("alpha") != 0;
        return new AttentionSpec
        {
            Attention = "flash",
            QueryHeads = golden.Integer("heads"),
            KeyValueHeads = golden.Integer("kv_heads"),
            HeadDim = golden.Integer("head_dim"),
            ValueDim = golden.Integer("head_dim"),
            GroupSize = golden.Integer("group_size"),
            Local = golden["local"] switch { "relu2" => LocalKind.Relu2, "yoso8" => LocalKind.Yoso8, var other => throw new InvalidDataException($"local {other}") },
            Global = global,
            HasAlpha = global,
            ConvTaps = golden.Integer("conv_kernel_size") switch { 0 => 0, 63 => Taps, var other => throw new InvalidDataException($"conv_kernel_size {other}") },
            Norm = golden["norm"] switch
            {
                "none" => OutputNorm.None,
                "global" => OutputNorm.Global,
                "together" => OutputNorm.Together,
                "castling" => OutputNorm.Castling,
                var other => throw new InvalidDataException($"norm {other}"),
            },
        };
    }

    private static Tokens Read(GoldenCase golden, string prefix) => new(Spec(golden), golden.Shape(prefix + "q")[0],
        golden.Floats(prefix + "q"), golden.Floats(prefix + "k"), golden.Floats(prefix + "v"));
}
