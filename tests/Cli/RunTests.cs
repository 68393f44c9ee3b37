using System.Text.Json;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline run</c> on single operations.</summary>
public class RunTests
{
    private const string Attention = "attention/augmented_h4kv1d48_t64_g16.safetensors";
    private const string Tree = "tree/wide_h3kv1d64_p45_g16.safetensors";
    private const string Acceptance = "acceptance/typical_small_1.safetensors";

    public static TheoryData<string, bool> Ways => new(
        from backend in BackendsUnderTest.Names from stepwise in new[] { false, true } select (backend, stepwise));

    private static string[] Cases => [.. Golden.Cases("attention"), .. Golden.Cases("tree"), .. Golden.Cases("acceptance")];

    [Theory, MemberData(nameof(Ways))]
    public void Recorded_cases_are_within_the_tolerance(string backend, bool stepwise) => Within([.. Cases.Where(Golden.IsCopied)], backend, stepwise);

    [Theory, MemberData(nameof(Ways)), Trait("tier", "full")]
    public void Every_recorded_case_is_within_the_tolerance(string backend, bool stepwise) => Within(Cases, backend, stepwise);

    private static void Within(string[] names, string backend, bool stepwise)
    {
        ToolRun run = Tool.Run(["run", .. names.Select(Golden.Locate), "--backend", backend, "--json", .. stepwise ? ["--stepwise"] : Array.Empty<string>()]).Succeeds();
        JsonElement[] cases = [.. run.Json.GetProperty("cases").EnumerateArray()];
        Assert.Equal(names.Length, cases.Length);
        foreach (JsonElement output in cases.SelectMany(one => one.GetProperty("outputs").EnumerateArray()))
        {
            Assert.True(output.GetProperty("compared").GetBoolean());
            Assert.True(output.GetProperty("within").GetBoolean());
            bool isFloat = output.GetProperty("type").GetString() == "Float32";
            Assert.Equal(isFloat ? backend == "oracle" ? 2e-6 : 2e-5 : 0, output.GetProperty("tolerance").GetDouble());
        }
    }

    [Theory]
    [InlineData(Attention)]
    [InlineData(Tree)]
    [InlineData(Acceptance)]
    public void Computed_tensors_are_written_under_the_expected_names_types_and_shapes(string name)
    {
        using var folder = new Folder();
        string path = Golden.Locate(name), written = folder[$"new/{Path.GetFileName(name)}"];
        Tool.Run("run", path, "--backend", "oracle", "--out", folder["new"]).Succeeds();
        using SafetensorsFile want = SafetensorsFile.Open(path), got = SafetensorsFile.Open(written);
        string[] outputs = want.Metadata["outputs"].Split(',');
        Assert.Equal(outputs.Order(), got.Tensors.Select(tensor => tensor.Name).Order());
        foreach (string output in outputs)
        {
            Assert.Equal(want[output].StoredType, got[output].StoredType);
            Assert.Equal(want[output].Shape.ToArray(), got[output].Shape.ToArray());
            Close.To(want[output].ToFloat32(), got[output].ToFloat32(), Close.Oracle, output);
        }

        Assert.Equal([Path.GetFileName(name)], Directory.GetFiles(folder["new"]).Select(Path.GetFileName));
    }

    [Theory]
    [InlineData(Attention)]
    [InlineData(Tree)]
    [InlineData(Acceptance)]
    public void A_case_without_expected_tensors_is_computed_all_the_same(string name)
    {
        using var folder = new Folder();
        using SafetensorsFile original = SafetensorsFile.Open(Golden.Locate(name));
        string[] outputs = original.Metadata["outputs"].Split(',');
        // A tree's parents are an input of `verify` and an output of `acceptance`: what is left out is what the metadata names.
        string path = CaseFiles.Copy(name, folder["bare.safetensors"], without: [.. outputs, "reference_out"]);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--out", folder["out"], "--json").Succeeds();
        Assert.All(run.Json.GetProperty("cases")[0].GetProperty("outputs").EnumerateArray(), output => Assert.False(output.GetProperty("compared").GetBoolean()));
        using SafetensorsFile got = SafetensorsFile.Open(folder["out/bare.safetensors"]);
        foreach (string output in outputs) Close.To(original[output].ToFloat32(), got[output].ToFloat32(), Close.Oracle, output);
    }

    [Fact]
    public void A_case_of_a_tree_alone_needs_no_logits()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Acceptance, folder["case.safetensors"], new() { ["outputs"] = "retrieve_indices,parent" }, without: ["base_logits", "medusa_logits", "node_logits"]);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--json").Succeeds();
        Assert.Equal(["parent", "retrieve_indices"], run.Json.GetProperty("cases")[0].GetProperty("outputs").EnumerateArray().Select(output => output.GetProperty("name").GetString()));
    }

    [Theory]
    [InlineData(Attention, "kind,group_size,conv_kernel_size,alpha")]
    [InlineData(Tree, "kind,group_size,conv_kernel_size,alpha,op")]
    [InlineData("attention/local_h4kv1d48_t64_g16.safetensors", "kind,group_size")]
    [InlineData("attention/norm_together_h4kv4d32_t128_g64.safetensors", "kind,group_size")]
    [InlineData("attention/yoso_local_h2kv2d64_t40_g64.safetensors", "kind")]
    [InlineData("attention/castling_h4kv4d32_t128_g64.safetensors", "kind")]
    public void Metadata_that_says_the_usual_may_be_missing(string name, string kept)
    {
        using var folder = new Folder();
        using SafetensorsFile original = SafetensorsFile.Open(Golden.Locate(name));
        Dictionary<string, string?> removed = original.Metadata.Keys.Where(key => key != "op" && !kept.Split(',').Contains(key)).ToDictionary(key => key, _ => (string?)null);
        string path = CaseFiles.Copy(name, folder["case.safetensors"], removed);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--json").Succeeds();
        Assert.All(run.Json.GetProperty("cases")[0].GetProperty("outputs").EnumerateArray(), output => Assert.True(output.GetProperty("compared").GetBoolean()));
    }

    [Fact]
    public void Values_may_be_wider_than_keys()
    {
        // Twice the same value side by side: the attention's weights do not know of it, each half comes out as before.
        using var folder = new Folder();
        string original = Golden.Locate("attention/local_h4kv2d32_t1_g16.safetensors");
        using SafetensorsFile file = SafetensorsFile.Open(original);
        static float[] Twice(float[] rows, int width) => [.. rows.Chunk(width).SelectMany(row => row.Concat(row))];
        string path = CaseFiles.Copy("attention/local_h4kv2d32_t1_g16.safetensors", folder["wide.safetensors"], without: ["v", "out"], more: writer =>
        {
            writer.Add("v", [1, 2, 64], Twice(file["v"].ToFloat32(), 32));
            writer.Add("out", [1, 4, 64], Twice(file["out"].ToFloat32(), 32));
        });
        Tool.Run("run", path, "--backend", "oracle").Succeeds();
    }

    [Fact]
    public void Past_the_tolerance_the_exit_code_is_1_and_the_file_is_written()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"], edit: (name, numbers) => numbers[0] += name == "out" ? 0.01f : 0);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--out", folder["out"]);
        Assert.Equal(ExitCodes.Mismatch, run.Code);
        Assert.Contains("PAST THE TOLERANCE", run.Out, StringComparison.Ordinal);
        Assert.True(File.Exists(folder["out/case.safetensors"]));
        Tool.Run("run", path, "--backend", "oracle", "--tolerance", "0.1").Succeeds();
    }

    [Fact]
    public void Integers_must_be_equal_whatever_the_tolerance()
    {
        using var folder = new Folder();
        using SafetensorsFile file = SafetensorsFile.Open(Golden.Locate(Acceptance));
        int[] wrong = file["parent"].ToInt32();
        wrong[^1]++;
        string path = CaseFiles.Copy(Acceptance, folder["case.safetensors"], without: ["parent"], more: writer => writer.Add("parent", [wrong.Length], wrong));
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--tolerance", "100");
        Assert.Equal(ExitCodes.Mismatch, run.Code);
        Assert.Contains("1 differ", run.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void A_nan_is_past_every_tolerance()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"], edit: (name, numbers) => numbers[0] = name == "v" ? float.NaN : numbers[0]);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--tolerance", "1e30", "--json");
        Assert.Equal(ExitCodes.Mismatch, run.Code);
        Assert.Equal(JsonValueKind.Null, run.Json.GetProperty("cases")[0].GetProperty("outputs")[0].GetProperty("error").ValueKind);
    }

    [Fact]
    public void Of_several_cases_each_is_reported_and_the_highest_code_wins()
    {
        using var folder = new Folder();
        string off = CaseFiles.Copy(Attention, folder["off.safetensors"], edit: (name, numbers) => numbers[0] += name == "out" ? 1 : 0);
        ToolRun run = Tool.Run("run", Golden.Locate(Tree), off, folder["missing.safetensors"], "--backend", "oracle", "--json");
        Assert.Equal(ExitCodes.Input, run.Code);
        Assert.Equal([ExitCodes.Success, ExitCodes.Mismatch, ExitCodes.Input], run.Json.GetProperty("cases").EnumerateArray().Select(one => one.GetProperty("exit_code").GetInt32()));
        Assert.Equal(ExitCodes.Input, run.Json.GetProperty("exit_code").GetInt32());
        Assert.Contains("missing.safetensors", run.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Two_cases_of_one_name_are_refused_with_out()
    {
        using var folder = new Folder();
        Directory.CreateDirectory(folder["a"]);
        string copy = CaseFiles.Copy(Attention, folder[$"a/{Path.GetFileName(Attention)}"]);
        Tool.Run("run", copy, Golden.Locate(Attention), "--out", folder["out"]).Refuses(ExitCodes.Usage, "--out", copy);
        Assert.Equal(["a"], folder.Files);
    }

    [Fact]
    public void A_case_is_not_overwritten_by_its_own_outputs()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"]);
        byte[] before = File.ReadAllBytes(path);
        ToolRun run = Tool.Run("run", path, "--backend", "oracle", "--out", folder.Path);
        Assert.Equal(ExitCodes.Output, run.Code);
        Assert.Equal(before, File.ReadAllBytes(path));
    }

    [Fact]
    public void An_unwritable_folder_is_refused_before_anything_is_computed()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["file"], "");
        Tool.Run("run", Golden.Locate(Attention), "--out", folder["file/out"]).Refuses(ExitCodes.Output, "cannot be written");
        Tool.Run("run", Golden.Locate(Attention), "--out", folder["new"], "--backend", "abacus").Refuses(ExitCodes.Unavailable, "abacus");
        Assert.Equal(["file"], folder.Files);
    }

    [Fact]
    public void A_case_that_has_been_run_is_closed()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"]);
        Tool.Run("run", path, "--backend", "oracle").Succeeds();
        using FileStream alone = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
        Assert.True(alone.Length > 0);
    }

    [Fact]
    public void Cancelled_between_steps()
    {
        using var folder = new Folder();
        ToolRun run = Tool.Run("", new CancellationToken(canceled: true), "run", Golden.Locate(Attention), "--stepwise", "--out", folder["out"], "--backend", "oracle");
        Assert.Equal(ExitCodes.Cancelled, run.Code);
        Assert.Contains("cancelled", run.Error, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(folder["out"]));
    }
}
