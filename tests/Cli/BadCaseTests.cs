using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary>Cases that <c>treeline run</c> refuses, each by name and with its exit code.</summary>
public class BadCaseTests
{
    private const string Attention = "attention/augmented_h4kv1d48_t64_g16.safetensors";
    private const string Tree = "tree/small_h4kv4d32_p40_g16.safetensors";
    private const string Acceptance = "acceptance/greedy_small_9.safetensors";

    [Theory]
    [InlineData(Attention, "op", "attend", ExitCodes.Unsupported, "attend")]
    [InlineData(Attention, "op", null, ExitCodes.Input, "op is missing")]
    [InlineData(Attention, "kind", "augmented2", ExitCodes.Unsupported, "augmented2")]
    [InlineData(Attention, "kind", null, ExitCodes.Input, "kind is missing")]
    [InlineData(Attention, "local", "relu3", ExitCodes.Unsupported, "relu3")]
    [InlineData(Attention, "norm", "apart", ExitCodes.Unsupported, "apart")]
    [InlineData(Attention, "causal", "false", ExitCodes.Unsupported, "causal")]
    [InlineData(Attention, "layout", "[heads, tokens, dim]", ExitCodes.Unsupported, "layout")]
    [InlineData(Attention, "outputs", "out,attention", ExitCodes.Unsupported, "attention")]
    [InlineData(Attention, "alpha", "a third", ExitCodes.Input, "a third")]
    [InlineData(Attention, "alpha", null, ExitCodes.Input, "alpha is missing")]
    [InlineData(Attention, "group_size", "-16", ExitCodes.Input, "group_size")]
    [InlineData(Attention, "group_size", "16.5", ExitCodes.Input, "group_size")]
    [InlineData(Attention, "conv_kernel_size", "31", ExitCodes.Input, "conv_weight")]
    [InlineData(Tree, "prefix_len", "41", ExitCodes.Input, "prefix_len")]
    [InlineData(Tree, "op", "attention", ExitCodes.Unsupported, "next_out")]
    [InlineData(Acceptance, "rule", "lenient", ExitCodes.Unsupported, "lenient")]
    [InlineData(Acceptance, "choices", "[[0], [1, 1]]", ExitCodes.Input, "[1, 1]")]
    [InlineData(Acceptance, "choices", "[[0], [0, 0], [0, 0, 0], [0, 0, 0, 0]]", ExitCodes.Input, "heads")]
    [InlineData(Acceptance, "choices", "[[10]]", ExitCodes.Input, "[10]")]
    [InlineData(Acceptance, "choices", "[0, 1]", ExitCodes.Input, "choices")]
    [InlineData(Acceptance, "choices", "[[0.5]]", ExitCodes.Input, "choices")]
    [InlineData(Acceptance, "choices", "[[0]", ExitCodes.Input, "choices")]
    [InlineData(Acceptance, "choices", null, ExitCodes.Input, "choices")]
    public void Bad_metadata(string name, string key, string? value, int code, string word)
    {
        using var folder = new Folder();
        Refused(CaseFiles.Copy(name, folder["case.safetensors"], new() { [key] = value }), folder, code, word);
    }

    [Theory]
    [InlineData(Attention, "q")]
    [InlineData(Attention, "v")]
    [InlineData(Attention, "conv_weight")]
    [InlineData(Tree, "prefix_k")]
    [InlineData(Tree, "accepted")]
    [InlineData(Tree, "next_q")]
    [InlineData(Acceptance, "node_logits")]
    [InlineData(Acceptance, "base_logits")]
    public void A_missing_input_is_named(string name, string tensor)
    {
        using var folder = new Folder();
        Refused(CaseFiles.Copy(name, folder["case.safetensors"], without: [tensor]), folder, ExitCodes.Input, tensor);
    }

    public static TheoryData<string, string, int[], int[]> Contradictions => new()
    {
        { Attention, "k", [64, 2, 24], [] },
        { Attention, "v", [63, 1, 48], [] },
        { Attention, "q", [64, 192], [] },
        { Tree, "parent", [7], [-1, 0, 1, 2, 3, 4, 6] },
        { Tree, "parent", [2], [-1, 0] },
        { Tree, "accepted", [2], [1, 0] },
        { Tree, "accepted", [2], [0, 99] },
    };

    [Theory, MemberData(nameof(Contradictions))]
    public void A_tensor_that_contradicts_the_others_is_named(string name, string tensor, int[] shape, int[] integers)
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(name, folder["case.safetensors"], without: [tensor], more: writer =>
        {
            if (integers.Length > 0) writer.Add(tensor, shape, integers);
            else writer.Add(tensor, shape, new float[shape.Aggregate((a, b) => a * b)]);
        });
        Refused(path, folder, ExitCodes.Input, tensor == "parent" && integers.Length == 7 ? "node 6" : tensor);
    }

    [Theory]
    [InlineData(Attention, "q")]
    [InlineData(Attention, "conv_weight")]
    [InlineData(Tree, "prefix_v")]
    [InlineData(Acceptance, "base_logits")]
    [InlineData(Acceptance, "medusa_logits")]
    [InlineData(Acceptance, "node_logits")]
    public void Integers_are_no_real_numbers(string name, string tensor)
    {
        using var folder = new Folder();
        using SafetensorsFile original = SafetensorsFile.Open(Golden.Locate(name));
        string path = CaseFiles.Copy(name, folder["case.safetensors"], without: [tensor], more: writer => writer.Add(tensor, original[tensor].Shape, new int[original[tensor].Count]));
        Refused(path, folder, ExitCodes.Input, $"{tensor}: expected floating-point numbers");
    }

    [Fact]
    public void A_tree_over_the_limit_is_refused()
    {
        using var folder = new Folder();
        int[] parents = [.. Enumerable.Repeat(-1, 1025)];
        string path = CaseFiles.Copy(Tree, folder["case.safetensors"], without: ["parent"], more: writer => writer.Add("parent", [parents.Length], parents));
        Refused(path, folder, ExitCodes.Input, "1024");
    }

    [Fact]
    public void A_padding_mask_is_not_ignored()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"], more: writer => writer.Add("mask", [64], new int[64]));
        Refused(path, folder, ExitCodes.Unsupported, "mask");
    }

    [Fact]
    public void A_tensor_that_is_not_read_is_reported()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"], more: writer => writer.Add("note", [1], new int[1]));
        ToolRun run = Tool.Run("run", path, "--backend", "oracle");
        Assert.Equal(ExitCodes.Success, run.Code);
        Assert.Contains("warning", run.Error, StringComparison.Ordinal);
        Assert.Contains("note", run.Error, StringComparison.Ordinal);
    }

    public static TheoryData<string> Study => [.. Golden.Cases("study")];

    [Theory, MemberData(nameof(Study))]
    public void Attentions_without_groups_are_refused_by_name(string name)
    {
        using var folder = new Folder();
        string kind = Path.GetFileName(name).Split('_')[0];
        Refused(Golden.Locate(name), folder, ExitCodes.Unsupported, $"kind {kind}", "group_size 0");
    }

    [Fact]
    public void A_file_that_does_not_exist() => Refused("no/such/case.safetensors", null, ExitCodes.Input, "no/such/case.safetensors");

    [Fact]
    public void A_file_that_is_no_safetensors()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["text.safetensors"], "This is a sentence, not a header of tensors.");
        Refused(folder["text.safetensors"], folder, ExitCodes.Input, "text.safetensors");
    }

    [Fact]
    public void A_truncated_file()
    {
        using var folder = new Folder();
        File.WriteAllBytes(folder["cut.safetensors"], File.ReadAllBytes(Golden.Locate(Attention))[..^100]);
        Refused(folder["cut.safetensors"], folder, ExitCodes.Input, "cut.safetensors");
    }

    [Fact]
    public void A_folder_without_a_recording()
    {
        using var folder = new Folder();
        Directory.CreateDirectory(folder["model"]);
        Refused(folder["model"], folder, ExitCodes.Input, "recorded.safetensors");
    }

    [Fact]
    public void A_group_size_that_the_backend_does_not_have()
    {
        using var folder = new Folder();
        string path = CaseFiles.Copy(Attention, folder["case.safetensors"], new() { ["group_size"] = "8" });
        Refused(path, folder, ExitCodes.Unsupported, "GroupSize", "16");
    }

    /// <summary>One clear line, the code, and nothing written.</summary>
    private static void Refused(string path, Folder? folder, int code, params string[] words)
    {
        string[] output = folder is null ? [] : ["--out", folder["out"]];
        ToolRun run = Tool.Run(["run", path, "--backend", "cpu", "--threads", "1", "--json", .. output]);
        Assert.True(run.Code == code, $"want exit code {code}, got {run.Code}: {run.Error}");
        string line = Assert.Single(run.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        foreach (string word in words.Append(path)) Assert.Contains(word, line, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", line, StringComparison.Ordinal);
        Assert.Equal(code, run.Json.GetProperty("cases")[0].GetProperty("exit_code").GetInt32());
        if (folder is not null) Assert.Empty(Directory.GetFileSystemEntries(folder["out"]));
    }
}
