using System.Text.Json;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline generate</c>.</summary>
public class GenerateTests
{
    private static readonly string Model = ModelFolder.Shakespeare;

    private static readonly JsonElement Recorded = JsonDocument.Parse(File.ReadAllText(Path.Combine(Model, "recorded.json"))).RootElement;

    public static TheoryData<string[]> Ways => new(
        [],
        ["--drafter", "medusa"],
        ["--drafter", "medusa", "--tree", "medusa63", "--acceptance", "greedy"],
        ["--drafter", "medusa", "--tree", "chain:3", "--threads", "1"],
        ["--drafter", "lookup", "--acceptance", "lossless", "--threads", "3", "--pin"]);

    [Theory, MemberData(nameof(Ways))]
    public void Greedy_text_is_the_recorded_one_whoever_guesses(string[] way)
    {
        string prompt = Recorded.GetProperty("prompt").GetString()!, want = Recorded.GetProperty("greedy").GetString()!;
        ToolRun run = Tool.Run(["generate", "--model", Model, "--prompt", prompt, "--max-tokens", "70", .. way]).Succeeds();
        Assert.EndsWith("\n", run.Out, StringComparison.Ordinal);
        Assert.True(run.Out.Length > 100);
        Assert.StartsWith(run.Out.TrimEnd('\n'), want, StringComparison.Ordinal);
    }

    [Fact]
    public void Sampled_text_depends_on_the_seed_and_not_on_the_tree()
    {
        string Text(params string[] more) => Tool.Run(["generate", "--model", Model, "--prompt", "KING:", "--max-tokens", "40", "--temperature", "0.9", "--top-k", "50", "--top-p", "0.95",
            "--min-p", "0.01", "--repetition-penalty", "1.1", .. more]).Succeeds().Out;
        string one = Text("--seed", "1");
        Assert.Equal(one, Text("--seed=1", "--drafter", "medusa", "--tree", "medusa63"));
        Assert.NotEqual(one, Text("--seed", "2"));
        Assert.NotEqual(one, Text("--seed", "1", "--drafter", "medusa", "--tree", "medusa63", "--acceptance", "typical"));
    }

    [Fact]
    public void As_json_with_statistics()
    {
        JsonElement json = Tool.Run("To be, or", CancellationToken.None, "generate", "--model", Model, "--prompt", "-", "--max-tokens", "30", "--drafter", "medusa", "--tree", "chain:4", "--json", "--stats").Succeeds().Json;
        int[] tokens = [.. json.GetProperty("tokens").EnumerateArray().Select(token => token.GetInt32())];
        Assert.Equal(30, tokens.Length);
        Assert.Equal([399, 305, 45, 523], json.GetProperty("prompt_tokens").EnumerateArray().Select(token => token.GetInt32()));
        Assert.Equal(TextTokenizer.Load(Model)!.Decode(tokens), json.GetProperty("text").GetString());
        foreach ((string key, string value) in new[] { ("finish_reason", "max_tokens"), ("backend", "cpu"), ("drafter", "medusa"), ("tree", "chain:4"), ("acceptance", "greedy") })
            Assert.Equal(value, json.GetProperty(key).GetString());
        JsonElement statistics = json.GetProperty("statistics");
        Assert.Equal(30, statistics.GetProperty("tokens").GetInt32());
        Assert.Equal(4, statistics.GetProperty("prompt_tokens").GetInt32());
        Assert.Equal(4, statistics.GetProperty("depths").GetArrayLength());
        Assert.InRange(statistics.GetProperty("steps").GetInt32(), 6, 29);      // at least one guess was right
        Assert.False(Tool.Run("generate", "--model", Model, "--prompt", "To be", "--max-tokens", "2", "--json").Succeeds().Json.TryGetProperty("statistics", out _));
    }

    [Fact]
    public void Statistics_go_to_the_error_stream()
    {
        string[] args = ["generate", "--model", Model, "--prompt", "To be, or", "--max-tokens", "20"];
        ToolRun run = Tool.Run([.. args, "--stats"]);
        Assert.Equal(Tool.Run(args).Succeeds().Out, run.Out);
        foreach (string word in new[] { "prompt: 4 tokens", "text: 20 tokens", "ended by max_tokens", "tokens a step", "time, forward" })
            Assert.Contains(word, run.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Stop_strings_end_the_text_before_them()
    {
        string[] args = ["generate", "--model", Model, "--prompt", "To be, or", "--max-tokens", "60"];
        string whole = Tool.Run(args).Succeeds().Out;
        string stopped = Tool.Run([.. args, "--stop", "no such text", "--stop", "\n"]).Succeeds().Out;
        Assert.Equal(whole.Split('\n')[0] + "\n", stopped);
        Assert.Equal("stop_string", Tool.Run([.. args, "--stop", "\n", "--json"]).Succeeds().Json.GetProperty("finish_reason").GetString());
        Assert.Equal(whole.Split(' ')[1], Tool.Run([.. args, "--stop", " " + whole.Split(' ')[2]]).Succeeds().Out.Trim());
    }

    [Fact]
    public void A_file_of_choices_is_a_tree()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["tree.json"], "[[0], [1], [0, 0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0]]");
        string[] args = ["generate", "--model", Model, "--prompt", "To be, or", "--max-tokens", "40"];
        JsonElement json = Tool.Run([.. args, "--drafter", "medusa", "--tree", folder["tree.json"], "--json", "--stats"]).Succeeds().Json;
        Assert.Equal(Tool.Run(args).Succeeds().Out.TrimEnd('\n'), json.GetProperty("text").GetString()!.TrimEnd('\n'));
        // Cut to the four heads that exist: the root and five of the six choices.
        Assert.Equal(6, json.GetProperty("statistics").GetProperty("trees").EnumerateArray().Max(tree => tree.GetProperty("nodes").GetInt32()));
    }

    [Theory]
    [InlineData("[[0], [1, 0]]", "[1, 0]")]
    [InlineData("[0, 1]", "expected a list of ranks")]
    [InlineData("[[0]", "")]
    [InlineData("{}", "list of lists")]
    [InlineData(null, "no such file")]
    public void A_bad_file_of_choices_is_refused(string? content, string word)
    {
        using var folder = new Folder();
        if (content is not null) File.WriteAllText(folder["tree.json"], content);
        Tool.Run("generate", "--model", Model, "--prompt", "a", "--drafter", "medusa", "--tree", folder["tree.json"]).Refuses(ExitCodes.Input, "--tree", "tree.json", word);
    }

    [Fact]
    public void Messages_are_without_the_names_that_only_the_code_knows()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["tree.json"], "[[0], [0]]");
        ToolRun run = Tool.Run("generate", "--model", Model, "--prompt", "a", "--drafter", "medusa", "--tree", folder["tree.json"]);
        Assert.EndsWith("choices: [0] is listed twice\n", run.Error.ReplaceLineEndings("\n"), StringComparison.Ordinal);
    }

    [Fact]
    public void Options_that_change_nothing_are_said_so()
    {
        ToolRun run = Tool.Run("generate", "--model", Model, "--prompt", "To be", "--max-tokens", "1", "--top-k", "5", "--tree", "medusa63");
        Assert.Equal(ExitCodes.Success, run.Code);
        Assert.Contains("warning: --top-k", run.Error, StringComparison.Ordinal);
        Assert.Contains("warning: --tree", run.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void What_does_not_fit_is_refused()
    {
        string bare = Golden.Locate(ModelFolder.Softmax);
        Tool.Run("generate", "--model", Model, "--prompt", "").Refuses(ExitCodes.Input, "--prompt", "empty");
        Tool.Run("", CancellationToken.None, "generate", "--model", Model, "--prompt", "-").Refuses(ExitCodes.Input, "--prompt", "empty");
        Tool.Run("generate", "--model", Model).Refuses(ExitCodes.Usage, "--prompt");
        Tool.Run("generate", "--prompt", "a").Refuses(ExitCodes.Usage, "--model");
        Tool.Run("generate", "--model", bare, "--prompt", "a").Refuses(ExitCodes.Input, "no tokenizer");
        Tool.Run("generate", "--model", Model, "--prompt", "a", "--acceptance", "greedy", "--temperature", "1").Refuses(ExitCodes.Usage, "--acceptance", "--temperature 1");
        Tool.Run("generate", "--model", Model, "--prompt", "a", "--backend", "abacus").Refuses(ExitCodes.Unavailable, "abacus");
        using var folder = new Folder();
        ModelFolder.Copy(Model, folder["plain"], "medusa_lm_head.safetensors", "recorded.safetensors");
        Tool.Run("generate", "--model", folder["plain"], "--prompt", "a", "--drafter", "medusa").Refuses(ExitCodes.Input, "--drafter", "no Medusa heads");
    }

    [Fact]
    public void Logits_that_are_no_numbers_end_it_with_one_line()
    {
        using var folder = new Folder();
        string bad = ModelFolder.Copy(Model, folder["bad"], "model.safetensors", "medusa_lm_head.safetensors", "recorded.safetensors");
        CaseFiles.CopyFile(Path.Combine(Model, "model.safetensors"), folder["bad/model.safetensors"], edit: (name, numbers) => numbers[0] = name == "lm_head.weight" ? float.NaN : numbers[0]);
        Tool.Run("generate", "--model", bad, "--prompt", "To be").Refuses(ExitCodes.Input, "no token can be chosen", "NaN");
        File.WriteAllText(folder["text"], "To be, or not");
        Tool.Run("perplexity", "--model", bad, "--file", folder["text"]).Refuses(ExitCodes.Input, "no numbers");
    }

    [Fact]
    public void Cancelled_between_steps_the_text_so_far_stays()
    {
        string[] args = ["generate", "--model", Model, "--prompt", "To be, or", "--max-tokens", "40"];
        string whole = Tool.Run(args).Succeeds().Out;
        using var cancellation = new CancellationTokenSource();
        using var output = new CancellingWriter(cancellation, writes: 3);
        using var error = new StringWriter();
        Assert.Equal(ExitCodes.Cancelled, Program.Run(args, TextReader.Null, output, error, cancellation: cancellation.Token));
        string said = output.ToString();
        Assert.EndsWith("\n", said, StringComparison.Ordinal);
        Assert.InRange(said.Length, 4, whole.Length - 20);
        Assert.StartsWith(said[..^1], whole, StringComparison.Ordinal);
        Assert.Equal("treeline: cancelled\n", error.ToString().ReplaceLineEndings("\n"));
    }

    [Fact]
    public void A_long_prompt_shows_its_progress_to_who_watches()
    {
        string prompt = string.Concat(Enumerable.Repeat("To be, or not to be: ", 60));
        string[] args = ["generate", "--model", Model, "--prompt", prompt, "--max-tokens", "3"];
        using var output = new StringWriter();
        using var error = new StringWriter();
        Assert.Equal(ExitCodes.Success, Program.Run(args, TextReader.Null, output, error, showsProgress: true, TestContext.Current.CancellationToken));
        Assert.Equal(Tool.Run(args).Succeeds().Out, output.ToString());
        Assert.StartsWith("\rprompt: 256 of ", error.ToString(), StringComparison.Ordinal);
        Assert.EndsWith(" \r", error.ToString(), StringComparison.Ordinal);         // wiped before the text
    }

    [Fact]
    public void Cancelled_as_json_says_so()
    {
        ToolRun run = Tool.Run("", new CancellationToken(canceled: true), "generate", "--model", Model, "--prompt", "To be", "--json");
        Assert.Equal(ExitCodes.Cancelled, run.Code);
        Assert.Equal("cancelled", run.Json.GetProperty("finish_reason").GetString());
    }

    /// <summary>Cancels after some pieces of text.</summary>
    private sealed class CancellingWriter(CancellationTokenSource cancellation, int writes) : StringWriter
    {
        private int _left = writes;

        public override void Write(string? value)
        {
            base.Write(value);
            if (--_left == 0) cancellation.Cancel();
        }
    }
}
