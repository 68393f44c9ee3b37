using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>What a configuration changes in a model, against plain loops: options that no recording has.</summary>
public class ConfigurationTests
{
    private sealed record Option(string Model, Action<Dictionary<string, object?>> Set, Func<int, int, double>? Frequency = null);

    private static readonly Dictionary<string, Option> Options = new()
    {
        ["llama: biases"] = new("llama", config => config["attention_bias"] = config["mlp_bias"] = true),
        ["llama: tied head"] = new("llama", config => config["tie_word_embeddings"] = true),
        ["llama: linear scaling"] = new("llama", config => config["rope_scaling"] = new { rope_type = "linear", factor = 3.0 }, (_, j) => Plain(10000, j) / 3),
        ["llama: llama3 scaling"] = new("llama",
            config =>
            {
                config["rope_theta"] = 500.0;
                config["rope_scaling"] = new { rope_type = "llama3", factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, original_max_position_embeddings = 128 };
            },
            (_, j) => Llama3(Plain(500, j))),
        ["llama: dynamic scaling"] = new("llama",
            config =>
            {
                config["max_position_embeddings"] = 8;
                config["rope_scaling"] = new { type = "dynamic", factor = 2.0 };
            },
            (position, j) => Plain(10000 * Math.Pow(2.0 * Math.Max(position + 1, 8) / 8 - 1, 20 / 18.0), j)),
        ["gpt2: exact gelu"] = new("gpt2", config => config["activation_function"] = "gelu"),
        ["gpt2: untied head"] = new("gpt2", config => config["tie_word_embeddings"] = false),
        ["gpt2: scores by layer"] = new("gpt2", config => config["scale_attn_by_inverse_layer_idx"] = true),
        ["gpt2: scores as they are"] = new("gpt2", config => config["scale_attn_weights"] = false),
    };

    public static TheoryData<string> Cases => [.. Options.Keys];

    [Theory, MemberData(nameof(Cases))]
    public void Agrees_with_plain_loops(string option)
    {
        (string model, Action<Dictionary<string, object?>> set, Func<int, int, double>? frequency) = Options[option];
        using var folder = new TemporaryFolder();
        TinyCheckpoint checkpoint = new TinyCheckpoint(model, linear: false, seed: 3, set).Save(folder.Path);
        var random = new Random(4);
        int[] ids = [.. Enumerable.Range(0, 12).Select(_ => random.Next(TinyCheckpoint.Vocabulary))];
        double[] want = new PlainModel(checkpoint, frequency ?? ((_, j) => Plain(10000, j))).Logits(ids);
        foreach (string name in BackendsUnderTest.Names)
        {
            using KernelBackend backend = BackendsUnderTest.Open(name);
            using var rig = new ModelRig(CausalModel.Load(folder.Path, backend, new LoadOptions { Strict = true }));
            Close.To(want, Close.Widen(rig.Advance(0, ids, [7, 1, 4])), name == "oracle" ? Close.OracleModel : Close.Logits, $"{option}, {name}");
        }
    }

    // The oracle rounds weights to the same form, so only the sums differ.
    [Theory]
    [InlineData("llama", true, ElementType.BFloat16, null)]
    [InlineData("llama", false, ElementType.Float16, null)]
    [InlineData("gpt2", true, ElementType.Float16, WeightForm.InPlace)]
    [InlineData("llama", true, ElementType.BFloat16, WeightForm.InPlace)]
    [InlineData("gpt2", false, ElementType.Float32, WeightForm.BFloat16)]
    [InlineData("gpt2", true, ElementType.Float32, WeightForm.Int8)]
    [InlineData("llama", false, ElementType.BFloat16, WeightForm.Int4)]
    public void Narrow_weights_agree_with_the_oracle(string model, bool linear, ElementType stored, WeightForm? form)
    {
        using var folder = new TemporaryFolder();
        new TinyCheckpoint(model, linear, seed: 5).Save(folder.Path, stored);
        int[] ids = [.. Enumerable.Range(0, 40).Select(i => i * 97 % TinyCheckpoint.Vocabulary)];
        float[][] logits = [.. new[] { "oracle", "cpu" }.Select(name =>
        {
            using KernelBackend backend = BackendsUnderTest.Open(name);
            using var rig = new ModelRig(CausalModel.Load(folder.Path, backend, new LoadOptions { WeightForm = form }));
            return rig.Advance(0, ids);
        })];
        Close.To(logits[0], logits[1], Close.Logits, "logits");
    }

    // What is stored more precisely than the kernels read is read as float32, which these numbers are.
    [Theory]
    [InlineData("llama", true)]
    [InlineData("gpt2", false)]
    public void Float64_weights_are_read_as_float32(string model, bool linear)
    {
        using var wide = new TemporaryFolder();
        using var plain = new TemporaryFolder();
        new TinyCheckpoint(model, linear).Save(wide.Path, ElementType.Float64).Save(plain.Path);
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var got = new ModelRig(CausalModel.Load(wide.Path, backend));
        using var want = new ModelRig(CausalModel.Load(plain.Path, backend));
        Assert.Equal(want.Advance(0, 5, 6, 7), got.Advance(0, 5, 6, 7));
    }

    private static double Plain(double theta, int j) => Math.Pow(theta, -2.0 * j / TinyCheckpoint.HeadDim);

    private static double Llama3(double frequency)
    {
        double turns = 128 * frequency / (2 * Math.PI), smooth = Math.Clamp((turns - 1) / (4 - 1), 0, 1);
        return (1 - smooth) * frequency / 8 + smooth * frequency;
    }
}
