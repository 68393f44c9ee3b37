using System.Globalization;
using System.Text.Json;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline perplexity</c>.</summary>
public class PerplexityTests
{
    private const string Text = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n";

    private static readonly string Model = ModelFolder.Shakespeare;

    [Fact]
    public void It_is_the_mean_of_what_the_logits_say()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["text"], Text);
        int[] ids = TextTokenizer.Load(Model)!.Encode(Text);
        Tool.Run("logits", "--model", Model, "--ids", string.Join(',', ids), "--out", folder["l.safetensors"], "--backend", "oracle").Succeeds();
        double nats = 0;
        using (SafetensorsFile file = SafetensorsFile.Open(folder["l.safetensors"]))
        {
            float[][] rows = [.. file["logits"].ToFloat32().Chunk(1024)];
            for (int i = 0; i + 1 < ids.Length; i++) nats += Math.Log(rows[i].Sum(logit => Math.Exp(logit))) - rows[i][ids[i + 1]];
        }

        double want = Math.Exp(nats / (ids.Length - 1));
        JsonElement json = Tool.Run("perplexity", "--model", Model, "--file", folder["text"], "--json").Succeeds().Json;
        Assert.Equal(want, json.GetProperty("perplexity").GetDouble(), want * 1e-4);
        Assert.Equal(ids.Length - 1, json.GetProperty("tokens").GetInt32());
        Assert.Equal(1, json.GetProperty("windows").GetInt32());
        string line = Tool.Run(Text, CancellationToken.None, "perplexity", "--model", Model, "--file", "-").Succeeds().Out;
        Assert.Equal(want, double.Parse(line.Split(' ')[1], CultureInfo.InvariantCulture), want * 1e-3);
    }

    [Fact]
    public void Weights_are_held_as_is_asked()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["text"], Text);
        double Value(string form) => Tool.Run("perplexity", "--model", Model, "--file", folder["text"], "--weights", form, "--json").Succeeds().Json.GetProperty("perplexity").GetDouble();
        double stored = Value("stored");
        Assert.Equal(stored, Value("float32"));
        Assert.Equal(stored, Value("in-place"), stored * 1e-4);
        string[] narrow = ["bfloat16", "float16", "int8", "int4"];
        foreach (string form in narrow) Assert.InRange(Value(form), stored * 0.9, stored * 1.1);
        Assert.Equal(5, narrow.Select(Value).Append(stored).Distinct().Count());
        Tool.Run("perplexity", "--model", Model, "--file", folder["text"], "--weights", "int2")
            .Refuses(ExitCodes.Usage, "--weights: expected stored, float32, bfloat16, float16, int8, int4 or in-place, got int2");
        Tool.Run("compare", "--backends", "cpu,oracle", "--weights", "int2").Refuses(ExitCodes.Usage, "--weights: expected stored");
        Tool.Run("compare", "--backends", "cpu,oracle", "--weights", "int4").Refuses(ExitCodes.Usage, "--weights: expected a --model");
    }

    [Fact]
    public void What_cannot_be_measured_is_refused()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["short"], "To");
        File.WriteAllText(folder["text"], Text);
        Tool.Run("perplexity", "--model", Model, "--file", folder["short"]).Refuses(ExitCodes.Input, "at least two tokens, got 1");
        Tool.Run("perplexity", "--model", Model, "--file", folder["no"]).Refuses(ExitCodes.Input, "no such file");
        Tool.Run("perplexity", "--model", Model).Refuses(ExitCodes.Usage, "--file");
        Tool.Run("perplexity", "--model", Golden.Locate(ModelFolder.Softmax), "--file", folder["text"]).Refuses(ExitCodes.Input, "no tokenizer");
        Tool.Run("", new CancellationToken(canceled: true), "perplexity", "--model", Model, "--file", folder["text"]).Refuses(ExitCodes.Cancelled, "cancelled");
    }

    [Fact]
    public void Long_work_shows_its_progress_to_who_watches()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["text"], string.Concat(Enumerable.Repeat(Text, 20)));
        using var output = new StringWriter();
        using var error = new StringWriter();
        int code = Program.Run(["perplexity", "--model", Model, "--file", folder["text"], "--threads", "1"], TextReader.Null, output, error, showsProgress: true, TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.Success, code);
        Assert.Contains("\rtokens: ", error.ToString(), StringComparison.Ordinal);
        Assert.EndsWith("\r", error.ToString(), StringComparison.Ordinal);      // wiped at the end
        Assert.DoesNotContain('\r', output.ToString());
    }
}
