using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline logits</c>.</summary>
public class LogitsTests
{
    private static readonly string Model = Golden.Locate(ModelFolder.Llama);

    [Theory]
    [InlineData("oracle", false)]
    [InlineData("oracle", true)]
    [InlineData("cpu", false)]
    [InlineData("cpu", true)]
    public void All_logits_are_written(string backend, bool stepwise)
    {
        using var folder = new Folder();
        string recorded = Path.Combine(Model, "recorded.safetensors");
        ToolRun run = Tool.Run(["logits", "--model", Model, "--ids", recorded, "--out", folder["l.safetensors"], "--backend", backend, "--json", .. stepwise ? ["--stepwise"] : Array.Empty<string>()]).Succeeds();
        using SafetensorsFile want = SafetensorsFile.Open(recorded), got = SafetensorsFile.Open(folder["l.safetensors"]);
        Assert.Equal("logits F32 [150, 320]", Assert.Single(got.Tensors).ToString());
        Close.To(want["logits"].ToFloat32(), got["logits"].ToFloat32(), backend == "oracle" ? 5e-5 : 2e-4, "logits");
        Assert.Equal(folder["l.safetensors"], run.Json.GetProperty("file").GetString());
        Assert.Equal([150, 320], run.Json.GetProperty("shape").EnumerateArray().Select(size => size.GetInt32()));
        Assert.Equal(stepwise, run.Json.GetProperty("stepwise").GetBoolean());
    }

    [Fact]
    public void Ids_come_in_several_forms_and_mean_the_same()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["lines.txt"], "5\n17\r\n3\n");
        File.WriteAllText(folder["list.json"], "[5, 17, 3]");
        var writer = new SafetensorsWriter();
        writer.Add("ids", [1, 3], [5L, 17L, 3L]);
        writer.Save(folder["ids"]);                         // what a file is, its bytes say
        byte[] Logits(string ids, string input = "")
        {
            Tool.Run(input, CancellationToken.None, "logits", "--model", Model, "--ids", ids, "--out", folder["out.safetensors"]).Succeeds();
            return File.ReadAllBytes(folder["out.safetensors"]);
        }

        byte[] want = Logits("5,17,3");
        foreach (string ids in new[] { "5, 17, 3", folder["lines.txt"], folder["list.json"], folder["ids"] }) Assert.Equal(want, Logits(ids));
        Assert.Equal(want, Logits("-", "5 17 3\n"));
        Assert.NotEqual(want, Logits("5,17,4"));
    }

    [Theory]
    [InlineData("1,2,320", ExitCodes.Input, "expected tokens from 0 to 319, got 320 at place 2")]
    [InlineData("1,-2", ExitCodes.Input, "got -2 at place 1")]
    [InlineData("1,2-3", ExitCodes.Input, "got 2-3 at place 1")]
    [InlineData("99999999999", ExitCodes.Input, "99999999999")]
    [InlineData(",", ExitCodes.Input, "got none")]
    [InlineData("one,two", ExitCodes.Input, "one,two")]
    [InlineData("no-such-file.txt", ExitCodes.Input, "no-such-file.txt")]
    [InlineData("words.txt", ExitCodes.Input, "got three at place 2")]
    [InlineData("real.safetensors", ExitCodes.Input, "expected integers")]
    [InlineData("square.safetensors", ExitCodes.Input, "expected a shape of [tokens]")]
    [InlineData("other.safetensors", ExitCodes.Input, "'ids'")]
    [InlineData("cut.safetensors", ExitCodes.Input, "cut.safetensors")]
    public void Bad_ids_are_refused(string ids, int code, string word)
    {
        using var folder = new Folder();
        File.WriteAllText(folder["words.txt"], "1 2 three");
        Save("real.safetensors", writer => writer.Add("ids", [2], [1f, 2f]));
        Save("square.safetensors", writer => writer.Add("ids", [2, 2], [1, 2, 3, 4]));
        Save("other.safetensors", writer => writer.Add("tokens", [2], [1, 2]));
        File.WriteAllBytes(folder["cut.safetensors"], File.ReadAllBytes(folder["other.safetensors"])[..20]);
        string[] before = folder.Files;
        string given = File.Exists(folder[ids]) ? folder[ids] : ids;
        Tool.Run("logits", "--model", Model, "--ids", given, "--out", folder["out.safetensors"]).Refuses(code, word);
        Assert.Equal(before, folder.Files);

        void Save(string name, Action<SafetensorsWriter> add)
        {
            var writer = new SafetensorsWriter();
            add(writer);
            writer.Save(folder[name]);
        }
    }

    [Fact]
    public void What_is_missing_is_named()
    {
        Tool.Run("logits", "--ids", "1", "--out", "x").Refuses(ExitCodes.Usage, "--model");
        Tool.Run("logits", "--model", Model, "--out", "x").Refuses(ExitCodes.Usage, "--ids");
        Tool.Run("logits", "--model", Model, "--ids", "1").Refuses(ExitCodes.Usage, "--out");
        Tool.Run("logits", "--model", "no/such/folder", "--ids", "1", "--out", "x").Refuses(ExitCodes.Input, "no/such/folder");
    }

    [Fact]
    public void An_unwritable_place_is_refused_before_anything_is_computed()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["file"], "");
        Tool.Run("logits", "--model", Model, "--ids", "1", "--out", folder["file/out.safetensors"]).Refuses(ExitCodes.Output, "cannot be written");
        Tool.Run("logits", "--model", Model, "--ids", "1", "--out", folder.Path).Refuses(ExitCodes.Output, "folder");
        Assert.Equal(["file"], folder.Files);
    }

    [Fact]
    public void A_device_is_no_place_for_a_file() => Tool.Run("logits", "--model", Model, "--ids", "1", "--out", "/dev/no-such-device").Refuses(ExitCodes.Output, "/dev/no-such-device", "device");

    [Fact]
    public void A_text_longer_than_a_softmax_model_takes_is_refused()
    {
        using var folder = new Folder();
        string model = ModelFolder.Copy(Golden.Locate(ModelFolder.Softmax), folder["model"]);
        int limit = ModelConfig.Load(model).MaxPositions;
        string ids = string.Join(',', Enumerable.Repeat(1, limit + 1));
        Tool.Run("logits", "--model", model, "--ids", ids, "--out", folder["out.safetensors"]).Refuses(ExitCodes.Capacity, $"at most {limit}", $"{limit + 1}");
        Assert.Equal(["model"], folder.Files);
    }

    [Fact]
    public void A_tensor_too_many_is_reported_or_with_strict_refused()
    {
        using var folder = new Folder();
        string model = ModelFolder.Copy(Model, folder["model"], "model.safetensors");
        CaseFiles.Copy($"{ModelFolder.Llama}/model.safetensors", folder["model/model.safetensors"], more: writer => writer.Add("model.extra.weight", [2], [1f, 2f]));
        string[] args = ["logits", "--model", model, "--ids", "1", "--out", folder["out.safetensors"]];
        ToolRun run = Tool.Run(args);
        Assert.Equal(ExitCodes.Success, run.Code);
        Assert.Contains("warning", run.Error, StringComparison.Ordinal);
        Assert.Contains("model.extra.weight", run.Error, StringComparison.Ordinal);
        Tool.Run([.. args, "--strict"]).Refuses(ExitCodes.Input, "model.extra.weight");
    }

    [Fact]
    public void A_model_that_is_not_built_is_refused_by_name() =>
        Tool.Run("logits", "--model", Golden.Locate(Golden.Models("t5-")[0]), "--ids", "1", "--out", Path.Combine(Path.GetTempPath(), "never.safetensors")).Refuses(ExitCodes.Unsupported, "'t5'");

    [Fact]
    public void Cancelled_between_steps_nothing_is_written()
    {
        using var folder = new Folder();
        Tool.Run("", new CancellationToken(canceled: true), "logits", "--model", Model, "--ids", "1,2", "--stepwise", "--out", folder["out.safetensors"]).Refuses(ExitCodes.Cancelled, "cancelled");
        Assert.Empty(folder.Files);
    }
}
