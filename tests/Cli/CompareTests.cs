using System.Reflection;
using System.Text.Json;
using Treeline.Cli;
using Treeline.Cli.Comparison;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Treeline.Tests.Managed.Decoding;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline compare</c>: backends that agree are said to, one that is wrong is found and its op named.</summary>
public class CompareTests
{
    private static readonly string Llama = Golden.Locate(ModelFolder.Llama);

    static CompareTests() => WrongBackend.Register();

    public static TheoryData<string> Others => SwapTests.Others;

    [Fact]
    public void Every_op_of_the_contract_is_compared()
    {
        // What is not an op: memory, states, descriptions.
        string[] frame = ["Allocate", "Wrap", "Write", "Read", "Synchronize", "Supports", "Prepare", "CreateState", "Reserve", "Commit", "Describe", "Pack"];
        IEnumerable<string> ops = typeof(KernelBackend).GetMethods(BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.DeclaredOnly)
            .Where(method => method.IsVirtual && method.Name.EndsWith("Core", StringComparison.Ordinal)).Select(method => method.Name[..^"Core".Length]);
        Assert.Equal(ops.Except(frame).Distinct().Order(StringComparer.Ordinal), OpCase.All.Select(op => op.Op).Distinct().Order(StringComparer.Ordinal));
    }

    [Fact]
    public void What_is_compared_is_written_whole_and_paths_are_accepted()
    {
        using KernelBackend backend = BackendsUnderTest.Open("oracle");
        foreach (OpCase op in OpCase.All)
        {
            using var bench = new OpBench(backend);
            op.Run(bench);
            Assert.NotEmpty(bench.Outputs);
            foreach (OpOutput output in bench.Outputs)
            {
                Assert.DoesNotContain(float.NaN, output.Reals ?? []);
                Assert.DoesNotContain(int.MinValue, output.Integers ?? []);
                if (op.Op is "Accept" or "AcceptTypical" && output.Name is "" or "accepted") Assert.True(output.Integers!.Count(node => node > 0) >= 2, op.Op);
            }
        }
    }

    [Theory, MemberData(nameof(Others))]
    public void Backends_that_agree_are_said_to(string other)
    {
        string[] args = ["compare", "--backends", $"cpu,{other}", "--model", ModelFolder.Shakespeare, "--tokens", "8", "--threads", "2"];
        JsonElement answer = Tool.Run([.. args, "--json"]).Succeeds().Json, model = answer.GetProperty("model");
        Assert.Equal("cpu", answer.GetProperty("reference").GetString());
        foreach (JsonElement row in answer.GetProperty("ops").EnumerateArray().Concat(model.GetProperty("layers").EnumerateArray()))
        {
            JsonElement finding = Assert.Single(row.GetProperty("findings").EnumerateArray());
            Assert.Equal(other, finding.GetProperty("backend").GetString());
            Assert.True(finding.GetProperty("within").GetBoolean(), row.ToString());
        }

        Assert.All(answer.GetProperty("ops").EnumerateArray(), row => Assert.Equal(row.GetProperty("integer").GetBoolean() ? 0 : 2e-5, row.GetProperty("tolerance").GetDouble()));
        Assert.All(model.GetProperty("layers").EnumerateArray(), row => Assert.Equal(2e-4, row.GetProperty("tolerance").GetDouble()));
        Assert.Equal(JsonValueKind.Null, answer.GetProperty("first_op").GetProperty(other).ValueKind);
        Assert.Equal(JsonValueKind.Null, model.GetProperty("first_layer").GetProperty(other).ValueKind);

        string text = Tool.Run(args).Succeeds().Out;
        Assert.Contains($"{other}: ops: all {answer.GetProperty("ops").GetArrayLength()} agree", text, StringComparison.Ordinal);
        Assert.Contains($"{other}: layers and logits: all 5 agree", text, StringComparison.Ordinal);
        Assert.Contains($"{other}: text: identical for ", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_model_there_is_no_part_about_one() =>
        Assert.Equal(JsonValueKind.Null, Tool.Run("compare", "--backends", "cpu,oracle", "--json", "--threads", "2").Succeeds().Json.GetProperty("model").ValueKind);

    [Theory]
    [InlineData("Add", "Add")]
    [InlineData("Linear", "Linear weights Float32")]
    [InlineData("ArgMax", "ArgMax")]
    [InlineData("TopK", "TopK indices")]
    [InlineData("Accept", "Accept next")]
    [InlineData("SoftmaxAttend", "SoftmaxAttend softmax")]
    [InlineData("FlashAttend", "FlashAttend linear-angular (Castling)")]
    [InlineData("idle", "Add")]
    public void An_op_that_is_wrong_is_named_among_backends_that_are_right(string wrong, string name)
    {
        ToolRun run = Tool.Run("compare", "--backends", $"cpu,wrong:{wrong},oracle", "--json", "--threads", "2");
        Assert.Equal((ExitCodes.Mismatch, ""), (run.Code, run.Error));
        Assert.Equal(name, run.Json.GetProperty("first_op").GetProperty($"wrong:{wrong}").GetString());
        Assert.Equal(JsonValueKind.Null, run.Json.GetProperty("first_op").GetProperty("oracle").ValueKind);
        string op = name.Split(' ')[0];
        foreach (JsonElement row in run.Json.GetProperty("ops").EnumerateArray())
        {
            bool isWithin = row.GetProperty("findings")[0].GetProperty("within").GetBoolean();
            Assert.True(isWithin || row.GetProperty("name").GetString()!.StartsWith(op, StringComparison.Ordinal), row.ToString());
        }
    }

    [Fact]
    public void An_op_that_is_missing_is_not_within_and_has_the_code_of_what_is_not_computed()
    {
        ToolRun run = Tool.Run("compare", "--backends", "cpu,wrong:missing", "--threads", "2");
        Assert.Equal(ExitCodes.Unsupported, run.Code);
        Assert.Contains("wrong:missing: ops: 1 of ", run.Out, StringComparison.Ordinal);
        Assert.Contains("the first is Add (wrong:missing: no kernel for Add)", run.Out, StringComparison.Ordinal);
        run = Tool.Run("compare", "--backends", "wrong:missing,cpu", "--json", "--threads", "2");
        Assert.Equal(ExitCodes.Unsupported, run.Code);
        Assert.Equal("Add", run.Json.GetProperty("first_op").GetProperty("cpu").GetString());
    }

    [Fact]
    public void A_tolerance_of_nothing_is_passed()
    {
        ToolRun run = Tool.Run("compare", "--backends", "cpu,oracle", "--tolerance", "0", "--threads", "2");
        Assert.Equal(ExitCodes.Mismatch, run.Code);
        Assert.Contains("DO NOT AGREE, the first is Linear", run.Out, StringComparison.Ordinal);
        Assert.Contains("DIFFERS", run.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void A_model_is_compared_by_layer_by_logits_and_by_text()
    {
        ToolRun run = Tool.Run("compare", "--backends", "oracle,cpu", "--model", Llama, "--tokens", "12", "--json", "--threads", "2").Succeeds();
        JsonElement model = run.Json.GetProperty("model");
        Assert.Equal(100, model.GetProperty("ids").GetArrayLength());
        JsonElement[] rows = [.. model.GetProperty("layers").EnumerateArray()];
        Assert.Equal([.. Enumerable.Range(0, ModelConfig.Load(Llama).Layers).Select(layer => $"layer {layer}"), "logits"], rows.Select(row => row.GetProperty("name").GetString()!));
        // Zero would mean that nothing was compared: float32 is not float64.
        Assert.All(rows, row => Assert.InRange(row.GetProperty("findings")[0].GetProperty("error").GetDouble(), 1e-12, 2e-4));
        JsonElement text = model.GetProperty("texts")[0];
        Assert.Equal(("cpu", 12, true), (text.GetProperty("backend").GetString(), text.GetProperty("tokens").GetInt32(), text.GetProperty("identical").GetBoolean()));
    }

    [Fact]
    public void A_layer_that_is_wrong_and_the_token_where_the_texts_part_are_named()
    {
        string[] args = ["compare", "--backends", "cpu,wrong:layer", "--model", ModelFolder.Shakespeare, "--prompt", "ROMEO:\n", "--tokens", "20", "--threads", "2"];
        ToolRun run = Tool.Run([.. args, "--json"]);
        Assert.Equal((ExitCodes.Mismatch, ""), (run.Code, run.Error));
        JsonElement model = run.Json.GetProperty("model");
        Assert.Equal("layer 2", model.GetProperty("first_layer").GetProperty("wrong:layer").GetString());
        Assert.Equal(JsonValueKind.Null, run.Json.GetProperty("first_op").GetProperty("wrong:layer").ValueKind);
        JsonElement text = model.GetProperty("texts")[0];
        Assert.False(text.GetProperty("identical").GetBoolean());
        Assert.False(text.GetProperty("fair").GetBoolean());
        Assert.NotEqual(text.GetProperty("reference_token").GetInt32(), text.GetProperty("token").GetInt32());
        int at = text.GetProperty("parts_at").GetInt32();

        run = Tool.Run(args);
        Assert.Contains("layers and logits: 3 of 5 DO NOT AGREE, the first is layer 2", run.Out, StringComparison.Ordinal);
        Assert.Contains($"text: identical for {at} tokens; token {at} is {text.GetProperty("reference_token")} \"", run.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void A_parting_counts_by_the_margin_of_the_references_choice()
    {
        ModelRun Run(int[] text, params float[] margins) => new() { Layers = [], Logits = [], Text = text, Margins = margins };
        TextFinding Find(float margin) => TextFinding.Of(Run([5, 6, 7], 1, margin, 1), new Attempt<ModelRun>("other", Run([5, 8, 9], 1, 0.25f, 1), null));
        Assert.Equal((1, 6, 8, true, ExitCodes.Success), Facts(Find(0.0009f)));
        Assert.Equal((1, 6, 8, false, ExitCodes.Mismatch), Facts(Find(0.0011f)));
        Assert.Equal((0.0009f, 0.25f), (Find(0.0009f).ReferenceMargin, Find(0.0009f).Margin));
        Assert.Equal((1, 6, 8, false, ExitCodes.Mismatch), Facts(Find(float.NaN)));

        static (int?, int, int, bool, int) Facts(TextFinding finding) => (finding.PartsAt, finding.ReferenceToken, finding.Token, finding.IsFair, finding.ExitCode);
    }

    [Fact]
    public void What_is_no_number_is_never_close()
    {
        Assert.True(double.IsNaN(Measure.RelativeError([float.NaN], [float.NaN])));
        Assert.True(double.IsNaN(Measure.RelativeError([1, 2], [1, float.NaN])));
        Assert.True(double.IsNaN(Measure.RelativeError([float.PositiveInfinity], [float.NegativeInfinity])) || double.IsInfinity(Measure.RelativeError([float.PositiveInfinity], [float.NegativeInfinity])));
        Assert.Equal(0, Measure.RelativeError([float.PositiveInfinity, 1], [float.PositiveInfinity, 1]));
        Assert.Equal(0.25, Measure.RelativeError([4, -2], [3, -2]));
        Assert.False(Finding.Of("cpu", double.NaN, 1).IsWithin);
    }

    [Theory]
    [InlineData("--backends", "got none")]
    [InlineData("--backends", "got cpu", "--backends", "cpu")]
    [InlineData("--backends", "got cpu,cpu", "--backends", "cpu,cpu")]
    [InlineData("--backends", "got cpu,", "--backends", "cpu,")]
    [InlineData("--prompt", "expected a --model", "--backends", "cpu,oracle", "--prompt", "a")]
    [InlineData("--ids", "expected a --model", "--backends", "cpu,oracle", "--ids", "1")]
    [InlineData("--tokens", "got 0", "--backends", "cpu,oracle", "--tokens", "0")]
    [InlineData("--tolerance", "got -1", "--backends", "cpu,oracle", "--tolerance", "-1")]
    public void Options_that_do_not_fit_are_refused_by_name(string option, string word, params string[] args) => Tool.Run(["compare", .. args]).Refuses(ExitCodes.Usage, option, word);

    [Fact]
    public void What_cannot_be_read_or_opened_is_refused()
    {
        Tool.Run("compare", "--backends", "cpu,abacus").Refuses(ExitCodes.Unavailable, "abacus");
        Tool.Run("compare", "--backends", "cpu,oracle", "--model", "no/such/folder").Refuses(ExitCodes.Input, "no/such/folder");
        Tool.Run("compare", "--backends", "cpu,oracle", "--model", Llama, "--prompt", "a").Refuses(ExitCodes.Input, "no tokenizer");
        Tool.Run("compare", "--backends", "cpu,oracle", "--model", Llama, "--ids", "1,320").Refuses(ExitCodes.Input, "--ids", "got 320");
        Tool.Run("compare", "--backends", "cpu,oracle", "--model", ModelFolder.Shakespeare, "--prompt", "").Refuses(ExitCodes.Input, "--prompt");
        Tool.Run("compare", "--backends", "cpu,oracle", "--model", Llama, "--prompt", "a", "--ids", "1").Refuses(ExitCodes.Usage, "one of --prompt and --ids");
        Tool.Run("", new CancellationToken(canceled: true), "compare", "--backends", "cpu,oracle").Refuses(ExitCodes.Cancelled, "cancelled");
    }
}
