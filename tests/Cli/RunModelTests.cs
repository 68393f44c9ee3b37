using System.Text.Json;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline run</c> on model folders.</summary>
public class RunModelTests
{
    private const string Recorded = "recorded.safetensors";

    public static TheoryData<string, bool> Ways => RunTests.Ways;

    private static string[] Models => [.. Golden.Models("llama-"), .. Golden.Models("gpt2-")];

    [Theory, MemberData(nameof(Ways))]
    public void Recorded_models_are_within_the_tolerance(string backend, bool stepwise) =>
        Within([.. Models.Where(Golden.IsCopied).Select(Golden.Locate)], backend, stepwise);

    [Theory, MemberData(nameof(Ways)), Trait("tier", "full")]
    public void Every_recorded_model_is_within_the_tolerance(string backend, bool stepwise) =>
        Within([.. Models.Select(Golden.Locate), ModelFolder.Shakespeare], backend, stepwise);

    private static void Within(string[] folders, string backend, bool stepwise)
    {
        ToolRun run = Tool.Run(["run", .. folders, "--backend", backend, "--json", .. stepwise ? ["--stepwise"] : Array.Empty<string>()]).Succeeds();
        JsonElement[] cases = [.. run.Json.GetProperty("cases").EnumerateArray()];
        Assert.Equal(folders.Length, cases.Length);
        foreach ((string folder, JsonElement one) in folders.Zip(cases))
        {
            using SafetensorsFile recorded = SafetensorsFile.Open(Path.Combine(folder, Recorded));
            JsonElement[] outputs = [.. one.GetProperty("outputs").EnumerateArray()];
            string[] wanted = [.. recorded.Metadata["outputs"].Split(','), .. recorded.TryGet("medusa_positions", out _) ? ["medusa_logits"] : Array.Empty<string>()];
            Assert.Equal(wanted.Order(), outputs.Select(output => output.GetProperty("name").GetString()).Order());
            foreach (JsonElement output in outputs)
            {
                Assert.True(output.GetProperty("within").GetBoolean());
                if (output.GetProperty("type").GetString() == "Float32") Assert.Equal(backend == "oracle" ? 5e-5 : 2e-4, output.GetProperty("tolerance").GetDouble());
            }
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_model_without_expected_tensors_is_computed_all_the_same(bool stepwise)
    {
        using var folder = new Folder();
        string original = Golden.Locate(ModelFolder.Llama), bare = ModelFolder.Copy(original, folder["bare"], Recorded);
        CaseFiles.Copy($"{ModelFolder.Llama}/{Recorded}", folder[$"bare/{Recorded}"], without: ["logits", "medusa_logits", "greedy", "greedy_margin"]);
        ToolRun run = Tool.Run(["run", bare, "--out", folder["out"], "--json", .. stepwise ? ["--stepwise"] : Array.Empty<string>()]).Succeeds();
        JsonElement one = run.Json.GetProperty("cases")[0];
        Assert.Equal("llama", one.GetProperty("kind").GetString());
        Assert.All(one.GetProperty("outputs").EnumerateArray(), output => Assert.False(output.GetProperty("compared").GetBoolean()));
        using SafetensorsFile want = SafetensorsFile.Open(Path.Combine(original, Recorded)), got = SafetensorsFile.Open(folder["out/bare.safetensors"]);
        Assert.Equal(["greedy", "logits", "medusa_logits"], got.Tensors.Select(tensor => tensor.Name).Order());
        foreach (CheckpointTensor tensor in got.Tensors)
        {
            Assert.Equal(want[tensor.Name].ToString(), tensor.ToString());
            Close.To(want[tensor.Name].ToFloat32(), tensor.ToFloat32(), Close.Logits, tensor.Name);
        }
    }

    [Fact]
    public void Heads_are_compared_at_the_positions_that_a_case_names()
    {
        using var folder = new Folder();
        string original = Golden.Locate(ModelFolder.Llama), some = ModelFolder.Copy(original, folder["some"], Recorded);
        using SafetensorsFile recorded = SafetensorsFile.Open(Path.Combine(original, Recorded));
        // Out of order and twice the same: what counts is the list. The list of outputs does not name the heads, as in the model that ships.
        int[] positions = [3, 149, 0, 3];
        int[] shape = recorded["medusa_logits"].Shape.ToArray();
        float[] all = recorded["medusa_logits"].ToFloat32();
        float[] wanted = [.. Enumerable.Range(0, shape[0]).SelectMany(head => positions.SelectMany(position => all.AsSpan((head * shape[1] + position) * shape[2], shape[2]).ToArray()))];
        CaseFiles.Copy($"{ModelFolder.Llama}/{Recorded}", folder[$"some/{Recorded}"], new() { ["outputs"] = "logits" }, ["medusa_logits", "greedy", "greedy_margin", "prompt"], more: writer =>
        {
            writer.Add("medusa_positions", [4], positions);
            writer.Add("medusa_logits", [shape[0], 4, shape[2]], wanted);
        });
        foreach (string[] way in new string[][] { [], ["--stepwise"] })
        {
            JsonElement outputs = Tool.Run(["run", some, "--json", .. way]).Succeeds().Json.GetProperty("cases")[0].GetProperty("outputs");
            Assert.Equal(["logits", "medusa_logits"], outputs.EnumerateArray().Select(output => output.GetProperty("name").GetString()));
            Assert.All(outputs.EnumerateArray(), output => Assert.True(output.GetProperty("within").GetBoolean()));
        }
    }

    [Theory]
    [InlineData(30, 30, true)]
    [InlineData(31, 30, false)]
    [InlineData(30, -1, false)]
    public void Greedy_texts_are_compared_up_to_the_first_small_margin(int smallAt, int wrongAt, bool within)
    {
        using var folder = new Folder();
        string changed = ModelFolder.Copy(Golden.Locate(ModelFolder.Llama), folder["model"], Recorded);
        using SafetensorsFile recorded = SafetensorsFile.Open(Path.Combine(Golden.Locate(ModelFolder.Llama), Recorded));
        long[] greedy = Array.ConvertAll(recorded["greedy"].ToInt32(), token => (long)token);
        greedy[wrongAt < 0 ? 0 : wrongAt]++;
        CaseFiles.Copy($"{ModelFolder.Llama}/{Recorded}", folder[$"model/{Recorded}"], new() { ["outputs"] = "greedy" }, ["greedy"],
            (name, numbers) => numbers[smallAt] = name == "greedy_margin" ? 0.9e-3f : numbers[smallAt], writer => writer.Add("greedy", [greedy.Length], greedy));
        ToolRun run = Tool.Run("run", changed, "--json");
        Assert.Equal(within ? ExitCodes.Success : ExitCodes.Mismatch, run.Code);
        JsonElement output = run.Json.GetProperty("cases")[0].GetProperty("outputs")[0];
        Assert.Equal(smallAt, output.GetProperty("elements_compared").GetInt32());
        Assert.Equal(within ? 0 : 1, output.GetProperty("error").GetDouble());
    }

    [Fact]
    public void Past_the_tolerance_the_exit_code_is_1()
    {
        using var folder = new Folder();
        string off = ModelFolder.Copy(Golden.Locate(ModelFolder.Softmax), folder["off"], Recorded);
        CaseFiles.Copy($"{ModelFolder.Softmax}/{Recorded}", folder[$"off/{Recorded}"], edit: (name, numbers) => numbers[0] += name == "logits" ? 1 : 0);
        Assert.Equal(ExitCodes.Mismatch, Tool.Run("run", off).Code);
        Tool.Run("run", off, "--tolerance", "2").Succeeds();
    }

    public static TheoryData<string> OtherFamilies => [.. Golden.Models("bert-"), .. Golden.Models("flash-"), .. Golden.Models("t5-")];

    [Theory, MemberData(nameof(OtherFamilies))]
    public void Families_that_are_not_built_are_refused_by_name(string name) =>
        Refused(Golden.Locate(name), ExitCodes.Unsupported, $"'{Path.GetFileName(name).Split('-')[0]}'", "not supported");

    public static TheoryData<string, string?, string[], int, string> BadRecordings => new()
    {
        { "op", "attention", [], ExitCodes.Unsupported, "op attention" },
        { "op", null, [], ExitCodes.Input, "op is missing" },
        { "outputs", "logits,pooled", [], ExitCodes.Unsupported, "pooled" },
        { "greedy_tokens", "0", [], ExitCodes.Input, "greedy_tokens: expected 1 or more, got 0" },
        { "greedy_tokens", "many", [], ExitCodes.Input, "many" },
        { "greedy_tokens", null, ["greedy"], ExitCodes.Input, "greedy_tokens" },
        { "greedy_tokens", "100000", [], ExitCodes.Capacity, "greedy_tokens" },
        { "op", "model", ["ids"], ExitCodes.Input, "ids is missing" },
        { "op", "model", ["prompt"], ExitCodes.Input, "prompt is missing" },
    };

    [Theory, MemberData(nameof(BadRecordings))]
    public void Bad_recordings(string key, string? value, string[] without, int code, string word)
    {
        using var folder = new Folder();
        string bad = ModelFolder.Copy(Golden.Locate(ModelFolder.Softmax), folder["bad"], Recorded);
        CaseFiles.Copy($"{ModelFolder.Softmax}/{Recorded}", folder[$"bad/{Recorded}"], new() { [key] = value }, without);
        Refused(bad, code, word);
    }

    [Fact]
    public void An_unknown_token_is_named()
    {
        using var folder = new Folder();
        string bad = ModelFolder.Copy(Golden.Locate(ModelFolder.Softmax), folder["bad"], Recorded);
        CaseFiles.Copy($"{ModelFolder.Softmax}/{Recorded}", folder[$"bad/{Recorded}"], without: ["ids"], more: writer => writer.Add("ids", [3], [1, 320, 2]));
        Refused(bad, ExitCodes.Input, "expected tokens from 0 to 319, got 320");
    }

    [Theory]
    [InlineData("[0, 200]", "medusa_positions")]
    [InlineData(null, "no Medusa heads")]
    public void Heads_that_are_not_there_are_missed(string? positions, string word)
    {
        using var folder = new Folder();
        string bad = ModelFolder.Copy(Golden.Locate(ModelFolder.Llama), folder["bad"], positions is null ? ["medusa_lm_head.safetensors", Recorded] : [Recorded]);
        CaseFiles.Copy($"{ModelFolder.Llama}/{Recorded}", folder[$"bad/{Recorded}"], more: writer =>
        {
            if (positions is not null) writer.Add("medusa_positions", [2], JsonSerializer.Deserialize<int[]>(positions)!);
        });
        Refused(bad, ExitCodes.Input, word);
    }

    [Fact]
    public void A_recording_without_its_model_names_the_folder() =>
        Refused(Path.Combine(Golden.Locate(ModelFolder.Llama), Recorded), ExitCodes.Input, "give the folder");

    [Fact]
    public void A_damaged_model_is_refused()
    {
        using var folder = new Folder();
        string bad = ModelFolder.Copy(Golden.Locate(ModelFolder.Softmax), folder["bad"]);
        File.WriteAllBytes(folder["bad/model.safetensors"], File.ReadAllBytes(folder["bad/model.safetensors"])[..^4]);
        Refused(bad, ExitCodes.Input, "model.safetensors");
        ModelFolder.Edit(bad, "\"vocab_size\": 320", "\"vocab_size\": 321");
        File.Copy(Path.Combine(Golden.Locate(ModelFolder.Softmax), "model.safetensors"), folder["bad/model.safetensors"], overwrite: true);
        Refused(bad, ExitCodes.Input, "[321, ");
        File.Delete(folder["bad/model.safetensors"]);
        Refused(bad, ExitCodes.Input, "holds none of");
        File.Delete(folder["bad/config.json"]);
        Refused(bad, ExitCodes.Input, "config.json");
    }

    [Fact]
    public void An_empty_name_is_refused() => Tool.Run("run", "").Refuses(ExitCodes.Usage, "CASE");

    private static void Refused(string path, int code, params string[] words)
    {
        ToolRun run = Tool.Run("run", path, "--threads", "1", "--json");
        Assert.True(run.Code == code, $"want exit code {code}, got {run.Code}: {run.Error}");
        string line = Assert.Single(run.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        foreach (string word in words.Append(path)) Assert.Contains(word, line, StringComparison.Ordinal);
        Assert.Equal(code, run.Json.GetProperty("exit_code").GetInt32());
    }
}
