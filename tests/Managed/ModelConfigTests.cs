using System.Text.Json.Nodes;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class ModelConfigTests : IDisposable
{
    private const string Llama = """
        {"model_type":"llama","vocab_size":320,"hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,"num_attention_heads":4}
        """;

    private const string Gpt2 = """{"model_type":"gpt2","vocab_size":200,"n_embd":48,"n_layer":2,"n_head":4,"n_inner":null}""";

    private const string Augmented = """{"local":"relu2","group_size":16,"global":true,"global_factor":true,"conv_kernel_size":63}""";

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Absent_keys_of_llama_have_the_fields_defaults()
    {
        ModelConfig config = Load(Llama);
        Assert.Equal((320, 64, 160, 2, 4, 4, 16), (config.VocabularySize, config.HiddenSize, config.FeedForwardSize, config.Layers, config.QueryHeads, config.KeyValueHeads, config.HeadDim));
        Assert.Equal((2048, 1e-6f, "silu"), (config.MaxPositions, config.NormEpsilon, config.Activation));
        Assert.Equal(new RotarySpec { RotaryDim = 16, Base = 10000 }, config.Rotary);
        Assert.False(config.TiedEmbeddings || config.AttentionBias || config.FeedForwardBias);
        Assert.Null(config.Linear);
        Assert.Null(config.WeightType);
        Assert.Null(config.BeginToken);
        Assert.Empty(config.StopTokens);
    }

    [Fact]
    public void Absent_keys_of_gpt2_have_the_fields_defaults()
    {
        ModelConfig config = Load(Gpt2);
        Assert.Equal((200, 48, 192, 2, 4, 4, 12), (config.VocabularySize, config.HiddenSize, config.FeedForwardSize, config.Layers, config.QueryHeads, config.KeyValueHeads, config.HeadDim));
        Assert.Equal((1024, 1e-5f, "gelu_new"), (config.MaxPositions, config.NormEpsilon, config.Activation));
        Assert.True(config.TiedEmbeddings && config.ScaleScores && config.AttentionBias && config.FeedForwardBias);
        Assert.False(config.ScaleByInverseLayer);
        Assert.Null(config.Rotary);
    }

    [Fact]
    public void Stored_keys_are_taken()
    {
        ModelConfig config = Load(With(Llama, """
            {"num_key_value_heads":2,"head_dim":20,"max_position_embeddings":4096,"rms_norm_eps":1e-5,"rope_theta":500000,"tie_word_embeddings":true,"attention_bias":true,
             "mlp_bias":true,"torch_dtype":"bfloat16","bos_token_id":1,"eos_token_id":2,"some_new_key":{"a":[1]},"pad_token_id":null}
            """));
        Assert.Equal((2, 20, 4096, 1e-5f), (config.KeyValueHeads, config.HeadDim, config.MaxPositions, config.NormEpsilon));
        Assert.Equal(new RotarySpec { RotaryDim = 20, Base = 500000 }, config.Rotary);
        Assert.True(config.TiedEmbeddings && config.AttentionBias && config.FeedForwardBias);
        Assert.Equal(ElementType.BFloat16, config.WeightType);
        Assert.Equal(1, config.BeginToken);
        Assert.Equal([2], config.StopTokens);

        config = Load(With(Gpt2, """{"n_inner":100,"n_positions":77,"activation_function":"gelu_pytorch_tanh","scale_attn_by_inverse_layer_idx":true,"scale_attn_weights":false}"""));
        Assert.Equal((100, 77, "gelu_new"), (config.FeedForwardSize, config.MaxPositions, config.Activation));
        Assert.True(config.ScaleByInverseLayer && !config.ScaleScores);
    }

    [Fact]
    public void Linear_attention_is_read()
    {
        Assert.Equal(new LinearAttentionConfig(LocalKind.Relu2, 16, true, true, 63), Load(With(Gpt2, $$"""{"linear_attention":{{Augmented}}}""")).Linear);
        Assert.Equal(new LinearAttentionConfig(LocalKind.None, 64, true, false, 0),
            Load(With(Llama, """{"linear_attention":{"local":"none","group_size":64,"global":true,"global_factor":false,"conv_kernel_size":0}}""")).Linear);
    }

    [Theory]
    [InlineData("""{"rope_scaling":{"type":"linear","factor":2.0}}""", RotaryScaling.Linear, 2, 0)]
    [InlineData("""{"rope_scaling":{"rope_type":"linear","type":"linear","factor":2}}""", RotaryScaling.Linear, 2, 0)]
    [InlineData("""{"rope_scaling":{"rope_type":"dynamic","factor":4.0}}""", RotaryScaling.Dynamic, 4, 2048)]
    [InlineData("""{"rope_scaling":{"rope_type":"dynamic","factor":4.0,"original_max_position_embeddings":512}}""", RotaryScaling.Dynamic, 4, 512)]
    [InlineData("""{"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}}""", RotaryScaling.Llama3, 8, 8192)]
    [InlineData("""{"rope_parameters":{"rope_type":"linear","factor":2,"rope_theta":10000}}""", RotaryScaling.Linear, 2, 0)]
    [InlineData("""{"rope_parameters":{"rope_theta":10000}}""", RotaryScaling.None, 1, 0)]
    [InlineData("""{"rope_scaling":{"rope_type":"default"}}""", RotaryScaling.None, 1, 0)]
    [InlineData("""{"rope_scaling":null}""", RotaryScaling.None, 1, 0)]
    public void Rope_scaling_is_read(string keys, RotaryScaling scaling, float factor, int original)
    {
        RotarySpec rotary = Load(With(Llama, keys)).Rotary!;
        Assert.Equal((10000, scaling, factor, original), (rotary.Base, rotary.Scaling, rotary.Factor, rotary.OriginalMaxPositions));
    }

    [Fact]
    public void Stop_tokens_come_from_the_generation_config_first()
    {
        _folder.Write("generation_config.json", """{"eos_token_id":[5,6,5,9999],"bos_token_id":3}""");
        ModelConfig config = Load(With(Llama, """{"eos_token_id":2}"""));
        Assert.Equal([5, 6], config.StopTokens);
        Assert.Equal(3, config.BeginToken);

        _folder.Write("generation_config.json", """{"temperature":0.5}""");
        Assert.Equal([2, 4], Load(With(Llama, """{"eos_token_id":[2,4]}""")).StopTokens);

        _folder.Write("generation_config.json", """{"eos_token_id":"x"}""");
        Assert.Contains("generation_config.json: eos_token_id", Assert.Throws<CheckpointException>(() => Load(Llama)).Message);
    }

    [Theory]
    [InlineData("hidden_size", null, "hidden_size: missing")]
    [InlineData("model_type", null, "model_type: missing")]
    [InlineData("model_type", "\"t5\"", "'t5' is not supported; supported are llama and gpt2")]
    [InlineData("model_type", "\"bert\"", "'bert' is not supported")]
    [InlineData("model_type", "\"flash\"", "'flash' is not supported")]
    [InlineData("vocab_size", "\"320\"", "vocab_size: expected a whole number")]
    [InlineData("vocab_size", "320.5", "vocab_size: expected a whole number")]
    [InlineData("vocab_size", "-1", "vocab_size: expected a number from 1 on")]
    [InlineData("vocab_size", "99999999999", "vocab_size: expected a whole number")]
    [InlineData("num_hidden_layers", "1000000000", "num_hidden_layers: expected a number from 1 to 10000, got 1000000000")]
    [InlineData("hidden_size", "66", "hidden_size: expected a multiple of num_attention_heads 4")]
    [InlineData("head_dim", "5", "head_dim: expected an even number")]
    [InlineData("head_dim", "2000000000", "too many")]
    [InlineData("num_key_value_heads", "3", "num_key_value_heads: expected a divisor")]
    [InlineData("num_key_value_heads", "8", "num_key_value_heads: expected a divisor")]
    [InlineData("tie_word_embeddings", "1", "tie_word_embeddings: expected true or false")]
    [InlineData("rms_norm_eps", "\"x\"", "rms_norm_eps: expected a number")]
    [InlineData("rms_norm_eps", "1e999", "rms_norm_eps: expected a number")]
    [InlineData("rms_norm_eps", "-1", "rms_norm_eps")]
    [InlineData("hidden_act", "\"relu\"", "hidden_act: 'relu' is not supported")]
    [InlineData("rope_theta", "0", "Base")]
    [InlineData("rope_scaling", "{\"type\":\"yarn\",\"factor\":2}", "'yarn' is not supported")]
    [InlineData("rope_scaling", "{\"type\":\"linear\",\"factor\":2,\"beta\":1}", "rope_scaling.beta: not a known key")]
    [InlineData("rope_scaling", "{\"type\":\"linear\",\"rope_type\":\"dynamic\",\"factor\":2}", "contradicts")]
    [InlineData("rope_scaling", "{\"type\":\"linear\"}", "rope_scaling.factor: missing")]
    [InlineData("rope_scaling", "{\"factor\":2}", "rope_scaling.rope_type: missing")]
    [InlineData("rope_scaling", "{\"type\":\"linear\",\"factor\":0}", "Factor")]
    [InlineData("rope_scaling", "3", "rope_scaling: expected an object")]
    [InlineData("quantization_config", "{}", "quantization_config")]
    [InlineData("linear_attention", "{\"local\":\"yoso\",\"group_size\":16,\"global\":true,\"global_factor\":true,\"conv_kernel_size\":63}", "linear_attention.local: expected relu2 or none")]
    [InlineData("linear_attention", "{\"local\":\"relu2\",\"group_size\":16,\"global\":true,\"global_factor\":true,\"conv_kernel_size\":62}", "conv_kernel_size: expected 0 or an odd width")]
    [InlineData("linear_attention", "{\"local\":\"relu2\",\"group_size\":16,\"global\":true,\"global_factor\":true,\"conv_kernel_size\":63,\"norm\":1}", "linear_attention.norm: not a known key")]
    [InlineData("linear_attention", "{\"local\":\"relu2\",\"group_size\":0,\"global\":true,\"global_factor\":true,\"conv_kernel_size\":63}", "group_size: expected a number from 1 on")]
    [InlineData("linear_attention", "{\"local\":\"relu2\",\"global\":true,\"global_factor\":true,\"conv_kernel_size\":63}", "linear_attention.group_size: missing")]
    [InlineData("linear_attention", "{\"local\":\"relu2\",\"group_size\":16,\"global\":false,\"global_factor\":true,\"conv_kernel_size\":63}", "global_factor: expected false")]
    [InlineData("linear_attention", "{\"local\":\"none\",\"group_size\":16,\"global\":false,\"global_factor\":false,\"conv_kernel_size\":0}", "nothing is left")]
    public void What_is_missing_or_wrong_is_named(string key, string? json, string message)
    {
        JsonObject config = JsonNode.Parse(Llama)!.AsObject();
        if (json is null) config.Remove(key);
        else config[key] = JsonNode.Parse(json);
        var e = Assert.Throws<CheckpointException>(() => Load(config.ToJsonString()));
        Assert.Contains(message, e.Message);
        Assert.Contains("config.json", e.Message);
        // Nothing is wrong with what names another model, activation or scaling: this version just does not compute it.
        Assert.Equal(message.Contains("is not supported", StringComparison.Ordinal) || key == "quantization_config", e.IsUnsupported);
    }

    [Theory]
    [InlineData("[1]")]
    [InlineData("{\"model_type\":\"llama\",\"model_type\":\"gpt2\"}")]
    [InlineData("{")]
    [InlineData("")]
    public void What_is_no_object_is_refused(string json) => Assert.Throws<CheckpointException>(() => Load(json));

    [Fact]
    public void Deep_nesting_and_bad_text_are_refused()
    {
        Assert.Throws<CheckpointException>(() => Load(new string('[', 100_000)));
        File.WriteAllBytes(_folder.At("config.json"), [.. "{\"model_type\":\"ll"u8, 0xff, .. "\"}"u8]);
        Assert.Throws<CheckpointException>(() => ModelConfig.Load(_folder.Path));
        File.WriteAllBytes(_folder.At("config.json"), [.. "{\"model_type"u8, 0xff, .. "\":1}"u8]);
        Assert.Throws<CheckpointException>(() => ModelConfig.Load(_folder.Path));
        File.Delete(_folder.At("config.json"));
        Assert.Contains("file not found", Assert.Throws<CheckpointException>(() => ModelConfig.Load(_folder.Path)).Message);
    }

    private ModelConfig Load(string json)
    {
        _folder.Write("config.json", json);
        return ModelConfig.Load(_folder.Path);
    }

    private static string With(string json, string keys)
    {
        JsonObject config = JsonNode.Parse(json)!.AsObject();
        foreach ((string key, JsonNode? value) in JsonNode.Parse(keys)!.AsObject()) config[key] = value?.DeepClone();
        return config.ToJsonString();
    }
}
