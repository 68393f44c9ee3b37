using System.Text.Json;
using Treeline.Cli;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline inspect</c>.</summary>
public class InspectTests
{
    [Fact]
    public void The_model_that_ships()
    {
        JsonElement json = Tool.Run("inspect", ModelFolder.Shakespeare, "--json").Succeeds().Json;
        Assert.Equal("llama", json.GetProperty("config").GetProperty("model_type").GetString());
        Assert.Equal(1024, json.GetProperty("config").GetProperty("vocabulary").GetInt32());
        Assert.Equal("augmented", json.GetProperty("attention").GetProperty("kind").GetString());
        Assert.Equal(64, json.GetProperty("attention").GetProperty("group_size").GetInt32());
        Assert.Equal(4, json.GetProperty("medusa_heads").GetInt32());
        Assert.Equal(1024, json.GetProperty("tokenizer_vocabulary").GetInt32());
        Assert.Equal(2_165_176, json.GetProperty("parameters").GetInt64());
        JsonElement embedding = json.GetProperty("tensors").EnumerateArray().Single(tensor => tensor.GetProperty("name").GetString() == "model.embed_tokens.weight");
        Assert.Equal([1024, 192], embedding.GetProperty("shape").EnumerateArray().Select(size => size.GetInt32()));
        string text = Tool.Run("inspect", ModelFolder.Shakespeare).Succeeds().Out;
        foreach (string word in new[] { "llama, 4 layers", "groups of 64", "32 taps", "at any length", "1024 tokens", "model.norm.weight", "[3, 1, 63, 1]" })
            Assert.Contains(word, text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("llama-augmented")]
    [InlineData("llama-softmax")]
    [InlineData("gpt2-augmented")]
    public void The_size_of_the_state_is_what_the_backend_keeps(string name)
    {
        string folder = Golden.Locate($"models/{name}");
        JsonElement state = Tool.Run("inspect", folder, "--json").Succeeds().Json.GetProperty("state");
        using KernelBackend backend = Backends.Open("cpu", new BackendOptions { Threads = 1 });
        using CausalModel model = CausalModel.Load(folder, backend);
        using AttentionState kept = model.CreateState(1, 64);
        Assert.Equal(kept.Grows, state.GetProperty("grows").GetBoolean());
        Assert.Equal(kept.Grows, state.GetProperty("bytes_per_token").GetInt64() > 0);
        var step = new Step();
        int tokens = model.AttentionSpecs[0].BlockLength - 1;   // most rows since the last boundary
        step.Advance(0, tokens);
        model.Forward(kept, step, new int[tokens]);
        long want = state.GetProperty("fixed_bytes").GetInt64() + tokens * state.GetProperty("bytes_per_token").GetInt64();
        using var snapshot = new MemoryStream();
        kept.Snapshot(0, snapshot);                         // the logical value: no padding, but names and checksums
        Assert.InRange(snapshot.Length, want, want + 2000);
    }

    [Fact]
    public void Softmax_grows_and_says_by_how_much()
    {
        string text = Tool.Run("inspect", Golden.Locate("models/llama-softmax")).Succeeds().Out;
        Assert.Contains("a token", text, StringComparison.Ordinal);
        Assert.Matches(@"\ntokenizer +none\n", text);
    }

    public static TheoryData<string> OtherFamilies => [.. Golden.Models("bert-"), .. Golden.Models("flash-"), .. Golden.Models("t5-")];

    [Theory, MemberData(nameof(OtherFamilies))]
    public void Models_that_are_not_built_are_listed_all_the_same(string name)
    {
        JsonElement json = Tool.Run("inspect", Golden.Locate(name), "--json").Succeeds().Json;
        Assert.Equal(JsonValueKind.Null, json.GetProperty("config").ValueKind);
        Assert.Contains("not supported", json.GetProperty("why_no_config").GetString(), StringComparison.Ordinal);
        Assert.True(json.GetProperty("tensors").GetArrayLength() > 10);
    }

    [Fact]
    public void A_single_file_shows_its_metadata_and_tensors()
    {
        JsonElement json = Tool.Run("inspect", Golden.Locate("attention/augmented_h4kv1d48_t64_g16.safetensors"), "--json").Succeeds().Json;
        Assert.Equal("attention", json.GetProperty("metadata").GetProperty("op").GetString());
        Assert.Contains("conv_weight", json.GetProperty("tensors").EnumerateArray().Select(tensor => tensor.GetProperty("name").GetString()));
    }

    [Fact]
    public void What_cannot_be_read_is_refused()
    {
        using var folder = new Folder();
        Tool.Run("inspect", folder["nothing"]).Refuses(ExitCodes.Input, "nothing");
        Tool.Run("inspect", "").Refuses(ExitCodes.Input, "MODEL");
        Tool.Run("inspect").Refuses(ExitCodes.Usage, "MODEL");
        Tool.Run("inspect", folder.Path).Refuses(ExitCodes.Input, "holds none of");
        File.WriteAllText(folder["text.safetensors"], "This is a sentence, not a header.");
        Tool.Run("inspect", folder["text.safetensors"]).Refuses(ExitCodes.Input, "text.safetensors");
        string bad = ModelFolder.Copy(Golden.Locate(ModelFolder.Llama), folder["bad"]);
        ModelFolder.Edit(bad, "\"vocab_size\"", "\"vocab_sise\"");
        Tool.Run("inspect", bad).Refuses(ExitCodes.Input, "config.json", "vocab_size");
    }
}
