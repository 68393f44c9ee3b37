using Treeline.Kernels;

namespace Treeline;

/// <summary>Reads <c>config.json</c> and <c>generation_config.json</c> as the field's Python code writes them, with its defaults.</summary>
/// <remarks>Keys that would change what is computed are known or refused by name; all others are ignored.</remarks>
internal static class ModelConfigReader
{
    // Ten times as deep as any model; what is set up for each layer before its tensors are looked for stays small.
    private const int MostLayers = 10_000;

    public static ModelConfig Read(string path)
    {
        string file = Directory.Exists(path) ? Path.Combine(path, "config.json") : path;
        JsonFields config = JsonFile.Read(file);
        if (config.Has("quantization_config")) throw config.Unsupported("quantization_config", "quantized checkpoints are not supported");
        string type = config.String("model_type");
        ModelConfig model = type switch
        {
            "llama" => Llama(config),
            "gpt2" => Gpt2(config),
            _ => throw config.Unsupported("model_type", $"'{type}' is not supported; supported are llama and gpt2"),
        };
        if ((long)model.QueryHeads * model.HeadDim > int.MaxValue)
            throw config.Bad(type == "llama" ? "head_dim" : "n_head", $"{model.QueryHeads} heads of {model.HeadDim} channels are too many");
        return WithTokens(model, config, Path.Combine(Path.GetDirectoryName(file) ?? "", "generation_config.json"));
    }

    private static ModelConfig Llama(JsonFields config)
    {
        int hidden = config.Positive("hidden_size"), heads = config.Positive("num_attention_heads");
        int keyValueHeads = config.OptionalPositive("num_key_value_heads") ?? heads;
        if (heads % keyValueHeads != 0)
            throw config.Bad("num_key_value_heads", $"expected a divisor of num_attention_heads {heads}, got {keyValueHeads}");
        int headDim = config.OptionalPositive("head_dim") ?? Divided(config, "hidden_size", hidden, "num_attention_heads", heads);
        if (headDim % 2 != 0) throw config.Bad("head_dim", $"expected an even number, for the rotary embedding turns pairs, got {headDim}");
        int positions = config.OptionalPositive("max_position_embeddings") ?? 2048;
        return new ModelConfig
        {
            ModelType = "llama",
            VocabularySize = config.Positive("vocab_size"),
            HiddenSize = hidden,
            FeedForwardSize = config.Positive("intermediate_size"),
            Layers = Layers(config, "num_hidden_layers"),
            QueryHeads = heads,
            KeyValueHeads = keyValueHeads,
            HeadDim = headDim,
            MaxPositions = positions,
            NormEpsilon = Epsilon(config, "rms_norm_eps", 1e-6f),
            TiedEmbeddings = config.OptionalBool("tie_word_embeddings") ?? false,
            Rotary = RotaryReader.Read(config, headDim, positions),
            Activation = Activation(config, "hidden_act", "silu", ["silu"]),
            AttentionBias = config.OptionalBool("attention_bias") ?? false,
            FeedForwardBias = config.OptionalBool("mlp_bias") ?? false,
            Linear = Linear(config),
            WeightType = WeightType(config),
        };
    }

    private static ModelConfig Gpt2(JsonFields config)
    {
        int hidden = config.Positive("n_embd"), heads = config.Positive("n_head");
        int? inner = config.OptionalPositive("n_inner");
        if (inner is null && hidden > int.MaxValue / 4) throw config.Bad("n_embd", $"{hidden} is too large");
        return new ModelConfig
        {
            ModelType = "gpt2",
            VocabularySize = config.Positive("vocab_size"),
            HiddenSize = hidden,
            FeedForwardSize = inner ?? 4 * hidden,
            Layers = Layers(config, "n_layer"),
            QueryHeads = heads,
            KeyValueHeads = heads,
            HeadDim = Divided(config, "n_embd", hidden, "n_head", heads),
            MaxPositions = config.OptionalPositive("n_positions") ?? 1024,
            NormEpsilon = Epsilon(config, "layer_norm_epsilon", 1e-5f),
            TiedEmbeddings = config.OptionalBool("tie_word_embeddings") ?? true,
            Activation = Activation(config, "activation_function", "gelu_new", ["gelu", "gelu_new"]),
            ScaleByInverseLayer = config.OptionalBool("scale_attn_by_inverse_layer_idx") ?? false,
            ScaleScores = config.OptionalBool("scale_attn_weights") ?? true,
            AttentionBias = true,
            FeedForwardBias = true,
            Linear = Linear(config),
            WeightType = WeightType(config),
        };
    }

    private static int Layers(JsonFields config, string key) =>
        config.Positive(key) is var layers && layers <= MostLayers ? layers : throw config.Bad(key, $"expected a number from 1 to {MostLayers}, got {layers}");

    private static int Divided(JsonFields config, string sizeKey, int size, string headsKey, int heads) => size % heads == 0
        ? size / heads
        : throw config.Bad(sizeKey, $"expected a multiple of {headsKey} {heads}, got {size}");

    private static float Epsilon(JsonFields config, string key, float standard)
    {
        float epsilon = config.OptionalFloat(key) ?? standard;
        return epsilon >= 0 ? epsilon : throw config.Bad(key, $"expected a number from 0 on, got {epsilon}");
    }

    private static string Activation(JsonFields config, string key, string standard, string[] supported)
    {
        string name = config.OptionalString(key) ?? standard;
        string plain = name switch { "swish" => "silu", "gelu_pytorch_tanh" => "gelu_new", _ => name };
        return supported.Contains(plain) ? plain : throw config.Unsupported(key, $"'{name}' is not supported; supported: {string.Join(", ", supported)}");
    }

    private static LinearAttentionConfig? Linear(JsonFields config)
    {
        if (config.OptionalObject("linear_attention") is not JsonFields linear) return null;
        linear.AllowOnly("local", "group_size", "global", "global_factor", "conv_kernel_size");
        LocalKind local = linear.String("local") switch
        {
            "relu2" => LocalKind.Relu2,
            "none" => LocalKind.None,
            var other => throw linear.Bad("local", $"expected relu2 or none, got '{other}'"),
        };
        bool global = linear.Bool("global"), factor = linear.Bool("global_factor");
        int kernel = linear.Int("conv_kernel_size");
        if (kernel < 0 || (kernel != 0 && kernel % 2 == 0))
            throw linear.Bad("conv_kernel_size", $"expected 0 or an odd width (half of it, the future, is masked), got {kernel}");
        if (factor && !global) throw linear.Bad("global_factor", "expected false where global is false: there is nothing to scale");
        if (local == LocalKind.None && !global && kernel == 0) throw linear.Bad("local", "nothing is left to compute: no local part, no global part, no convolution");
        return new LinearAttentionConfig(local, linear.Positive("group_size"), global, factor, kernel);
    }

    private static ElementType? WeightType(JsonFields config) => (config.OptionalString("torch_dtype") ?? config.OptionalString("dtype")) switch
    {
        "float32" => ElementType.Float32,
        "bfloat16" => ElementType.BFloat16,
        "float16" => ElementType.Float16,
        "float64" => ElementType.Float64,
        _ => null,                                                          // "auto" and the like: the tensors say it themselves
    };

    // Some configurations keep token ids from a larger vocabulary: the model cannot emit them, so they begin and end nothing.
    private static ModelConfig WithTokens(ModelConfig model, JsonFields config, string generationFile)
    {
        IReadOnlyList<int> stop = config.Ints("eos_token_id");
        int? begin = config.OptionalInt("bos_token_id");
        if (File.Exists(generationFile))
        {
            JsonFields generation = JsonFile.Read(generationFile);
            if (generation.Has("eos_token_id")) stop = generation.Ints("eos_token_id");
            begin ??= generation.OptionalInt("bos_token_id");
        }

        bool Known(int token) => token >= 0 && token < model.VocabularySize;
        return model with { BeginToken = begin is int first && Known(first) ? first : null, StopTokens = [.. stop.Where(Known).Distinct()] };
    }
}
