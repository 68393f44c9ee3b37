using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>Recorded logits of the reference's own models, in one pass and one token at a time.</summary>
public class GoldenModelTests
{
    // Where the two largest logits are closer, another rounding may fairly choose the other token.
    private const float Margin = 1e-3f;

    private static readonly string Shakespeare = Path.Combine(Golden.Repository, "models", "shakespeare-2m");

    public static TheoryData<string, string> Models =>
        new(from name in BackendsUnderTest.Names from model in Golden.Models("llama-").Concat(Golden.Models("gpt2-")) select (name, model));

    /// <summary>A backend without variants is one itself: a theory without data counts as failed.</summary>
    public static TheoryData<string> Variants => [.. BackendsUnderTest.Variants.DefaultIfEmpty(BackendsUnderTest.Names[0])];

    public static TheoryData<string> Fast => [.. BackendsUnderTest.Names.Where(name => name != "oracle")];

    [Theory, MemberData(nameof(Models))]
    public void One_pass_gives_the_recorded_logits(string name, string folder) => OnePass(name, Golden.Locate(folder));

    [Theory, MemberData(nameof(Models))]
    public void So_does_one_token_at_a_time(string name, string folder) => Stepwise(name, Golden.Locate(folder));

    [Theory, MemberData(nameof(Models))]
    public void The_greedy_text_is_the_recorded_one(string name, string folder) => Greedy(name, Golden.Locate(folder), most: 100);

    [Theory, MemberData(nameof(Fast))]
    public void The_model_that_ships_computes_and_writes_what_was_recorded(string name) => Ships(name, tokens: 400);

    [Fact, Trait("tier", "full")]
    public void On_the_oracle_it_does_so_too() => Ships("oracle", tokens: 100);

    [Theory, MemberData(nameof(Variants)), Trait("tier", "full")]
    public void Every_variant_of_a_backend_gives_them(string name)
    {
        foreach (string folder in Golden.Models("llama-").Concat(Golden.Models("gpt2-")))
        {
            OnePass(name, Golden.Locate(folder));
            Stepwise(name, Golden.Locate(folder));
        }
    }

    private static void Ships(string name, int tokens)
    {
        OnePass(name, Shakespeare);
        Stepwise(name, Shakespeare);
        Greedy(name, Shakespeare, tokens);
    }

    private static void OnePass(string name, string folder)
    {
        using var recorded = new GoldenCase(Path.Combine(folder, "recorded.safetensors"));
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new ModelRig(CausalModel.Load(folder, backend, new LoadOptions { Strict = true }));
        int[] ids = recorded.Integers("ids");
        var step = new Step();
        step.Advance(0, ids.Length, LogitRows.All);
        ForwardOutput output = rig.Model.Forward(rig.State, step, ids);
        Close.To(recorded.Floats("logits"), backend.Download<float>(output.Logits), Tolerance(name), "logits");
        Assert.Equal(recorded.Has("medusa_logits"), rig.Model.Medusa is not null);
        if (rig.Model.Medusa is not { } heads) return;
        int[] positions = recorded.Has("medusa_positions") ? recorded.Integers("medusa_positions") : [.. Enumerable.Range(0, ids.Length)];
        CompareMedusa(recorded, backend.Download<float>(heads.Forward(output.Hidden)), heads.Count, positions, Tolerance(name));
    }

    private static void Stepwise(string name, string folder)
    {
        using var recorded = new GoldenCase(Path.Combine(folder, "recorded.safetensors"));
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new ModelRig(CausalModel.Load(folder, backend));
        int[] ids = recorded.Integers("ids");
        Close.To(recorded.Floats("logits"), rig.Advance(0, ids, [.. Enumerable.Repeat(1, ids.Length)]), Tolerance(name), "logits");
    }

    private static void Greedy(string name, string folder, int most)
    {
        using var recorded = new GoldenCase(Path.Combine(folder, "recorded.safetensors"));
        if (!recorded.Has("greedy")) return;
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new ModelRig(CausalModel.Load(folder, backend));
        int[] want = recorded.Integers("greedy");
        float[] margins = recorded.Floats("greedy_margin");
        int sure = Array.FindIndex(margins, margin => margin < Margin) is var first && first < 0 ? want.Length : first;
        Assert.True(sure > 0);

        float[] logits = rig.Advance(0, recorded.Integers("prompt"));
        for (int i = 0; i < Math.Min(sure, most); i++)
        {
            float[] last = logits[^rig.Model.VocabularySize..];
            int token = Array.IndexOf(last, last.Max());
            Assert.True(want[i] == token, $"{folder} on {name}: token {i}: want {want[i]}, got {token}");
            logits = rig.Advance(0, token);
        }
    }

    // Recorded [heads, positions, vocabulary], computed [positions · heads, vocabulary].
    private static void CompareMedusa(GoldenCase recorded, float[] got, int heads, int[] positions, double tolerance)
    {
        float[] want = recorded.Floats("medusa_logits");
        int vocabulary = recorded.Shape("medusa_logits")[2];
        var chosen = new float[want.Length];
        for (int head = 0; head < heads; head++)
            for (int i = 0; i < positions.Length; i++)
                got.AsSpan((positions[i] * heads + head) * vocabulary, vocabulary).CopyTo(chosen.AsSpan((head * positions.Length + i) * vocabulary));
        Close.To(want, chosen, tolerance, "medusa_logits");
    }

    private static double Tolerance(string name) => name == "oracle" ? Close.OracleModel : Close.Logits;
}
