using System.Text.Json;
using Treeline.Kernels;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed.Models;

/// <summary>A checkpoint with seeded random weights and sizes that fit no vector: hidden 200, feed-forward 331, vocabulary 1,003, heads of 20 channels.</summary>
internal sealed class TinyCheckpoint
{
    public const int Hidden = 200, Wide = 331, Vocabulary = 1003, HeadDim = 20, Layers = 2;

    private readonly Random _random;
    private readonly string _model;
    private readonly bool _linear;

    /// <summary>Draws a model's weights.</summary>
    /// <param name="model"><c>llama</c> or <c>gpt2</c>.</param>
    /// <param name="linear">Augmented linear attention (groups of 16, a kernel of 63), else softmax.</param>
    /// <param name="seed">Decides the weights.</param>
    /// <param name="configure">Changes the configuration before the weights are drawn.</param>
    public TinyCheckpoint(string model, bool linear, int seed = 1, Action<Dictionary<string, object?>>? configure = null)
    {
        (_model, _linear, _random) = (model, linear, new Random(seed));
        Config = model == "llama" ? LlamaConfig() : Gpt2Config();
        if (linear) Config["linear_attention"] = new { local = "relu2", group_size = 16, global = true, global_factor = true, conv_kernel_size = 63 };
        configure?.Invoke(Config);
        if (model == "llama") AddLlama();
        else AddGpt2();
    }

    /// <summary>What <c>config.json</c> will say.</summary>
    public Dictionary<string, object?> Config { get; }

    /// <summary>The parameters by name; float32 until they are saved.</summary>
    public SortedDictionary<string, (int[] Shape, float[] Numbers)> Tensors { get; } = new(StringComparer.Ordinal);

    public int QueryHeads => _model == "llama" ? 6 : Hidden / HeadDim;

    public int KeyValueHeads => _model == "llama" ? 2 : QueryHeads;

    /// <summary>Writes the folder.</summary>
    public TinyCheckpoint Save(string folder, ElementType type = ElementType.Float32)
    {
        File.WriteAllText(Path.Combine(folder, "config.json"), JsonSerializer.Serialize(Config));
        SaveTensors(Path.Combine(folder, "model.safetensors"), Tensors.Keys, type);
        return this;
    }

    /// <summary>Writes the folder with the tensors in two files and an index.</summary>
    public TinyCheckpoint SaveSharded(string folder)
    {
        File.WriteAllText(Path.Combine(folder, "config.json"), JsonSerializer.Serialize(Config));
        var map = Tensors.Keys.Select((name, i) => (name, File: $"part-{i % 2}.safetensors")).ToDictionary(pair => pair.name, pair => pair.File);
        foreach (string file in map.Values.Distinct()) SaveTensors(Path.Combine(folder, file), Tensors.Keys.Where(name => map[name] == file), ElementType.Float32);
        File.WriteAllText(Path.Combine(folder, "model.safetensors.index.json"), JsonSerializer.Serialize(new { weight_map = map }));
        return this;
    }

    /// <summary>Adds Medusa's heads beside it.</summary>
    public void SaveMedusa(string folder, int heads, int blocks)
    {
        var file = new SafetensorsWriter();
        for (int i = 0; i < heads; i++)
        {
            for (int j = 0; j < blocks; j++)
            {
                file.Add($"{i}.{j}.linear.weight", [Hidden, Hidden], _random.Floats(Hidden * Hidden, 0.07));
                file.Add($"{i}.{j}.linear.bias", [Hidden], _random.Floats(Hidden, 0.1));
            }

            file.Add($"{i}.{blocks}.weight", [Vocabulary, Hidden], _random.Floats(Vocabulary * Hidden, 0.1));
        }

        file.Save(Path.Combine(folder, "medusa_lm_head.safetensors"));
    }

    private static Dictionary<string, object?> LlamaConfig() => new()
    {
        ["model_type"] = "llama",
        ["vocab_size"] = Vocabulary,
        ["hidden_size"] = Hidden,
        ["intermediate_size"] = Wide,
        ["num_hidden_layers"] = Layers,
        ["num_attention_heads"] = 6,
        ["num_key_value_heads"] = 2,
        ["head_dim"] = HeadDim,
        ["max_position_embeddings"] = 256,
    };

    private static Dictionary<string, object?> Gpt2Config() => new()
    {
        ["model_type"] = "gpt2",
        ["vocab_size"] = Vocabulary,
        ["n_embd"] = Hidden,
        ["n_inner"] = Wide,
        ["n_layer"] = Layers,
        ["n_head"] = Hidden / HeadDim,
        ["n_positions"] = 256,
    };

    private bool Says(string key, bool standard = false) => Config.TryGetValue(key, out object? value) ? (bool)value! : standard;

    private void AddLlama()
    {
        int queries = QueryHeads * HeadDim, keys = KeyValueHeads * HeadDim;
        Matrix("model.embed_tokens.weight", Vocabulary, Hidden, 1);
        for (int i = 0; i < Layers; i++)
        {
            string at = $"model.layers.{i}";
            Gain($"{at}.input_layernorm.weight");
            Gain($"{at}.post_attention_layernorm.weight");
            Linear($"{at}.self_attn.q_proj", queries, Hidden, Says("attention_bias"));
            Linear($"{at}.self_attn.k_proj", keys, Hidden, Says("attention_bias"));
            Linear($"{at}.self_attn.v_proj", keys, Hidden, Says("attention_bias"));
            Linear($"{at}.self_attn.o_proj", Hidden, queries, Says("attention_bias"));
            Linear($"{at}.mlp.gate_proj", Wide, Hidden, Says("mlp_bias"));
            Linear($"{at}.mlp.up_proj", Wide, Hidden, Says("mlp_bias"));
            Linear($"{at}.mlp.down_proj", Hidden, Wide, Says("mlp_bias"));
            if (_linear) Augmentation($"{at}.self_attn.global_factor", $"{at}.self_attn.dwconv.weight");
        }

        Gain("model.norm.weight");
        if (!Says("tie_word_embeddings")) Matrix("lm_head.weight", Vocabulary, Hidden, 0.1);
    }

    private void AddGpt2()
    {
        Matrix("transformer.wte.weight", Vocabulary, Hidden, 0.5);
        Matrix("transformer.wpe.weight", 256, Hidden, 0.3);
        for (int i = 0; i < Layers; i++)
        {
            string at = $"transformer.h.{i}";
            LayerNorm($"{at}.ln_1");
            LayerNorm($"{at}.ln_2");
            Conv1D($"{at}.attn.c_attn", 3 * Hidden, Hidden);
            Conv1D($"{at}.attn.c_proj", Hidden, Hidden);
            Conv1D($"{at}.mlp.c_fc", Wide, Hidden);
            Conv1D($"{at}.mlp.c_proj", Hidden, Wide);
            if (_linear) Augmentation($"{at}.attn.alpha", $"{at}.attn.dconv_ada.weight");
        }

        LayerNorm("transformer.ln_f");
        if (!Says("tie_word_embeddings", standard: true)) Matrix("lm_head.weight", Vocabulary, Hidden, 0.1);
    }

    private void Augmentation(string alpha, string taps)
    {
        Tensors[alpha] = ([1], [0.4f]);
        Tensors[taps] = ([QueryHeads, 1, 63, 1], _random.Floats(QueryHeads * 63, 0.2));
    }

    private void Gain(string name) => Tensors[name] = ([Hidden], Array.ConvertAll(_random.Floats(Hidden, 0.1), x => 1 + x));

    private void LayerNorm(string name)
    {
        Gain($"{name}.weight");
        Tensors[$"{name}.bias"] = ([Hidden], _random.Floats(Hidden, 0.1));
    }

    private void Linear(string name, int outputs, int inputs, bool bias)
    {
        Matrix($"{name}.weight", outputs, inputs, 1 / Math.Sqrt(inputs));
        if (bias) Tensors[$"{name}.bias"] = ([outputs], _random.Floats(outputs, 0.2));
    }

    private void Conv1D(string name, int outputs, int inputs)
    {
        Matrix($"{name}.weight", inputs, outputs, 1 / Math.Sqrt(inputs));
        Tensors[$"{name}.bias"] = ([outputs], _random.Floats(outputs, 0.2));
    }

    private void Matrix(string name, int rows, int columns, double scale) => Tensors[name] = ([rows, columns], _random.Floats(rows * columns, scale));

    private void SaveTensors(string path, IEnumerable<string> names, ElementType type)
    {
        var file = new SafetensorsWriter();
        foreach (string name in names)
        {
            (int[] shape, float[] numbers) = Tensors[name];
            switch (type)
            {
                case ElementType.Float32: file.Add(name, shape, numbers); break;
                case ElementType.BFloat16: file.Add(name, shape, Array.ConvertAll(numbers, x => (BFloat16)x)); break;
                case ElementType.Float16: file.Add(name, shape, Array.ConvertAll(numbers, x => (Half)x)); break;
                case ElementType.Float64: file.Add(name, shape, Array.ConvertAll(numbers, x => (double)x)); break;
                default: throw new ArgumentOutOfRangeException(nameof(type), type, "no such weights");
            }
        }

        file.Save(path);
    }
}
