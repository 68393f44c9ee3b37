using System.Text.Json;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary>The command line itself: help, version, what is refused before any verb runs.</summary>
public class FrameTests
{
    public static TheoryData<string> Verbs => [.. Program.VerbNames];

    [Fact]
    public void Help_lists_all_verbs_and_exit_codes()
    {
        ToolRun run = Tool.Run("--help").Succeeds();
        foreach (string verb in Program.VerbNames) Assert.Contains($"\n    {verb} ", run.Out, StringComparison.Ordinal);
        foreach ((int code, string meaning) in ExitCodes.All) Assert.Contains($"{code}  {meaning}", run.Out, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Verbs))]
    public void Every_verb_has_help_with_exit_codes_and_json(string verb)
    {
        ToolRun run = Tool.Run(verb, "--help").Succeeds();
        Assert.Contains("EXIT CODES", run.Out, StringComparison.Ordinal);
        Assert.Contains("--json", run.Out, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Verbs))]
    public void Verbs_that_compute_take_backend_threads_and_pin(string verb)
    {
        string help = Tool.Run(verb, "--help").Succeeds().Out;
        bool computes = verb is not ("info" or "inspect" or "tokenize");
        foreach (string option in new[] { "--backend", "--threads", "--pin" })
            Assert.Equal(computes, help.Contains(option, StringComparison.Ordinal));
    }

    [Theory, MemberData(nameof(Verbs))]
    public void Unknown_options_are_refused(string verb) => Tool.Run(verb, "--no-such-option").Refuses(ExitCodes.Usage, "no-such-option", $"treeline {verb} --help");

    [Fact]
    public void Version_is_the_librarys() => Assert.Equal($"{Program.Version}\n", Tool.Run("--version").Succeeds().Out.ReplaceLineEndings("\n"));

    [Fact]
    public void No_verb_is_refused() => Tool.Run().Refuses(ExitCodes.Usage, "verb", "--help");

    [Fact]
    public void An_unknown_verb_is_refused() => Tool.Run("frobnicate").Refuses(ExitCodes.Usage, "frobnicate", "--help");

    [Theory]
    [InlineData("--threads", "0")]
    [InlineData("--threads", "-5")]
    [InlineData("--threads", "two")]
    [InlineData("--threads", "99999999999")]
    [InlineData("--tolerance", "-1")]
    [InlineData("--tolerance", "NaN")]
    [InlineData("--tolerance", "small")]
    public void Values_out_of_range_are_refused_by_name(string option, string value) =>
        Tool.Run("run", "some-case", option, value).Refuses(ExitCodes.Usage, option, value);

    [Theory]
    [InlineData("--max-tokens", "0")]
    [InlineData("--max-tokens", "1.5")]
    [InlineData("--temperature", "-0.1")]
    [InlineData("--temperature", "NaN")]
    [InlineData("--top-k", "-1")]
    [InlineData("--top-p", "0")]
    [InlineData("--top-p", "1.01")]
    [InlineData("--min-p", "2")]
    [InlineData("--repetition-penalty", "0")]
    [InlineData("--seed", "-5")]
    [InlineData("--seed", "18446744073709551616")]
    [InlineData("--drafter", "Medusa")]
    [InlineData("--acceptance", "strict")]
    [InlineData("--tree", "chain:1024")]
    [InlineData("--tree", "chain:-1")]
    [InlineData("--tree", "medusa64")]
    public void Values_out_of_range_of_generate_are_refused_by_name(string option, string value) =>
        Tool.Run("generate", "--model", ModelFolder.Shakespeare, "--prompt", "a", option, value).Refuses(ExitCodes.Usage, option, "expected", value);

    [Fact]
    public void Every_kind_of_failure_has_its_code()
    {
        Assert.Equal(ExitCodes.Internal, ExitCodes.Of(new InvalidOperationException()));
        Assert.StartsWith("internal error: InvalidOperationException", Program.MessageOf(new InvalidOperationException()), StringComparison.Ordinal);
        Assert.Equal(ExitCodes.Capacity, ExitCodes.Of(new Treeline.Kernels.OutOfDeviceMemoryException()));
        Assert.Equal(ExitCodes.Unavailable, ExitCodes.Of(new Treeline.Kernels.BackendUnavailableException()));
        Assert.Equal(ExitCodes.Unsupported, ExitCodes.Of(new CheckpointException("x") { IsUnsupported = true }));
        Assert.Equal(ExitCodes.Input, ExitCodes.Of(new CheckpointException("x")));
        Assert.Equal(ExitCodes.Cancelled, ExitCodes.Of(new TaskCanceledException()));
    }

    [Theory]
    [InlineData("run", "case", "--threads")]
    [InlineData("run", "case", "--backend", "--pin")]
    [InlineData("run", "case", "--backend=")]
    [InlineData("run", "case", "--backend", "")]
    public void A_missing_value_is_named(params string[] args) => Tool.Run(args).Refuses(ExitCodes.Usage, args[2].TrimEnd('='), "expected a value");

    [Fact]
    public void Arguments_after_two_dashes_are_refused_not_ignored() => Tool.Run("run", "case", "--", "-x").Refuses(ExitCodes.Usage, "--: expected", "-x");

    [Fact]
    public void Standard_output_that_cannot_be_written_is_the_outputs_fault()
    {
        using var error = new StringWriter();
        int code = Program.Run(["info"], TextReader.Null, new StreamWriter(new AnswerStream(new Full())), error, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.Output, code);
        Assert.Contains("standard output: cannot be written: no space", error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_required_argument_is_named() => Tool.Run("run").Refuses(ExitCodes.Usage, "CASE");

    [Fact]
    public void An_unknown_backend_is_refused_with_those_that_exist() => Tool.Run("run", "case", "--backend", "abacus").Refuses(ExitCodes.Unavailable, "abacus", "cpu", "oracle");

    [Fact]
    public void A_device_that_is_not_there_is_refused_by_its_name() =>
        Tool.Run("run", Golden.Locate("tree/wide_h3kv1d64_p45_g16.safetensors"), "--backend", "cuda:77").Refuses(ExitCodes.Unavailable, "cuda:77");

    [Fact]
    public void Info_names_every_backend_and_what_it_supports()
    {
        string text = Tool.Run("info").Succeeds().Out;
        foreach (string word in new[] { "cpu:", "oracle:", "thread", "bit", "softmax", "FLASH-Local" }) Assert.Contains(word, text, StringComparison.Ordinal);
    }

    [Fact]
    public void Info_as_json()
    {
        JsonElement json = Tool.Run("info", "--json").Succeeds().Json;
        Assert.Equal(Program.Version, json.GetProperty("version").GetString());
        Assert.True(json.GetProperty("cores").GetInt32() >= 1);
        JsonElement cpu = json.GetProperty("backends").EnumerateArray().Single(backend => backend.GetProperty("name").GetString() == "cpu");
        Assert.True(cpu.GetProperty("usable").GetBoolean());
        Assert.True(cpu.GetProperty("lossless_to_the_bit").GetBoolean());
        Assert.All(cpu.GetProperty("attentions").EnumerateArray(), attention => Assert.True(attention.GetProperty("supported").GetBoolean()));
    }

    [Fact]
    public void As_a_process_the_answer_alone_is_on_standard_output()
    {
        ToolRun run = Tool.Start("", "info", "--json");
        Assert.Equal(ExitCodes.Success, run.Code);
        Assert.Equal("", run.Error);
        Assert.Equal(JsonValueKind.Object, run.Json.ValueKind);
    }

    [Fact]
    public void As_a_process_an_error_is_one_line_and_a_code() => Tool.Start("", "run", "no-such-file", "--json", "--threads", "x").Refuses(ExitCodes.Usage, "--threads");

    private sealed class Full : MemoryStream
    {
        public override void Write(ReadOnlySpan<byte> buffer) => throw new IOException("no space");
    }
}
