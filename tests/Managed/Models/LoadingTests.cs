using System.Text.Json;
using Microsoft.Extensions.Logging;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>From a folder to a model, and what is said where that does not go.</summary>
public sealed class LoadingTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly KernelBackend _backend = BackendsUnderTest.Open("cpu");

    public void Dispose()
    {
        _backend.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void A_model_says_what_it_is()
    {
        new TinyCheckpoint("llama", linear: true, configure: config => (config["bos_token_id"], config["eos_token_id"]) = (7, new[] { 8, 9 })).Save(_folder.Path).SaveMedusa(_folder.Path, heads: 3, blocks: 2);
        using CausalModel model = Load();
        Assert.Same(_backend, model.Backend);
        Assert.Equal(TinyCheckpoint.Vocabulary, model.VocabularySize);
        Assert.Equal(int.MaxValue, model.MaxPositions);
        Assert.Equal(7, model.Config.BeginToken);
        Assert.Equal([8, 9], model.StopTokens);
        Assert.Equal(3, model.Medusa!.Count);
        Assert.Null(model.Tokenizer);
        Assert.Empty(model.UnusedTensors);
        AttentionSpec want = AttentionSpec.Augmented(6, 2, TinyCheckpoint.HeadDim, groupSize: 16);
        Assert.Equal([want, want], model.AttentionSpecs);
    }

    [Fact]
    public void Heads_of_several_blocks_are_counted_without_a_configuration_and_checked_with_one()
    {
        new TinyCheckpoint("llama", linear: false).Save(_folder.Path).SaveMedusa(_folder.Path, heads: 3, blocks: 2);
        using (CausalModel model = Load())
        using (var rig = new ModelRig(model))
        {
            float[] hidden = new Random(1).Floats(2 * TinyCheckpoint.Hidden);
            using DeviceTensor rows = _backend.Upload<float>(hidden, 2, TinyCheckpoint.Hidden);
            using Checkpoint heads = Checkpoint.Open(_folder.At("medusa_lm_head.safetensors"));
            Close.To(Medusa(heads, hidden, blocks: 2, count: 3), Close.Widen(_backend.Download<float>(model.Medusa!.Forward(rows))), Close.Logits, "heads");
        }

        _folder.Write("medusa_config.json", """{"medusa_num_heads": 4, "medusa_num_layers": 2}""");
        Assert.Contains("tensor '3.0.linear.weight': not found", Refused(), StringComparison.Ordinal);
        _folder.Write("medusa_config.json", """{"medusa_num_heads": 2, "medusa_num_layers": 2}""");
        using CausalModel fewer = Load();
        Assert.Equal(2, fewer.Medusa!.Count);
        Assert.Equal(["2.0.linear.bias", "2.0.linear.weight", "2.1.linear.bias", "2.1.linear.weight", "2.2.weight"], fewer.UnusedTensors.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Files_of_torch_are_the_same_model()
    {
        TinyCheckpoint checkpoint = new TinyCheckpoint("gpt2", linear: true).Save(_folder.Path);
        checkpoint.SaveMedusa(_folder.Path, heads: 2, blocks: 1);
        using var torch = new TemporaryFolder();
        File.Copy(_folder.At("config.json"), torch.At("config.json"));
        foreach ((string from, string to) in new[] { ("model.safetensors", "pytorch_model.bin"), ("medusa_lm_head.safetensors", "medusa_lm_head.pt") })
        {
            var file = new TorchFile();
            using Checkpoint stored = Checkpoint.Open(_folder.At(from));
            foreach (CheckpointTensor tensor in stored.Tensors) file.Floats(tensor.Name, Array.ConvertAll(tensor.Shape.ToArray(), size => (long)size), tensor.ToFloat32());
            torch.Write(to, file.ToBytes());
        }

        Assert.Equal(Logits(_folder.Path), Logits(torch.Path));
        using CausalModel model = CausalModel.Load(torch.Path, _backend, new LoadOptions { WeightForm = WeightForm.InPlace });
        using CausalModel want = Load();
        using DeviceTensor hidden = _backend.Upload<float>(new Random(1).Floats(TinyCheckpoint.Hidden), 1, TinyCheckpoint.Hidden);
        Close.To(_backend.Download<float>(want.Medusa!.Forward(hidden)), _backend.Download<float>(model.Medusa!.Forward(hidden)), Close.Attention, "heads");
    }

    [Fact]
    public void Weights_that_have_no_integers_are_refused_by_name()
    {
        var checkpoint = new TinyCheckpoint("llama", linear: false);
        checkpoint.Tensors["model.layers.1.mlp.up_proj.weight"].Numbers[3 * TinyCheckpoint.Hidden + 40] = float.NegativeInfinity;
        checkpoint.Save(_folder.Path);
        foreach (WeightForm form in new[] { WeightForm.Int8, WeightForm.Int4 })
        {
            string message = Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, _backend, new LoadOptions { WeightForm = form })).Message;
            Assert.Contains($"tensor 'model.layers.1.mlp.up_proj.weight': weight: expected finite numbers to pack as {form}, got {float.NegativeInfinity} at [3, 40]", message, StringComparison.Ordinal);
        }

        CausalModel.Load(_folder.Path, _backend).Dispose();
    }

    [Theory]
    [InlineData("llama", "model.")]
    [InlineData("gpt2", "transformer.")]
    public void Shards_and_names_without_the_prefix_are_the_same_model(string model, string prefix)
    {
        var checkpoint = new TinyCheckpoint(model, linear: true);
        checkpoint.Save(_folder.Path);
        float[] want = Logits(_folder.Path);
        using var sharded = new TemporaryFolder();
        checkpoint.SaveSharded(sharded.Path);
        Assert.Equal(want, Logits(sharded.Path));

        using var plain = new TemporaryFolder();
        foreach (string name in checkpoint.Tensors.Keys.Where(name => name.StartsWith(prefix, StringComparison.Ordinal)).ToArray())
        {
            checkpoint.Tensors[name[prefix.Length..]] = checkpoint.Tensors[name];
            checkpoint.Tensors.Remove(name);
        }

        checkpoint.Save(plain.Path);
        Assert.Equal(want, Logits(plain.Path));
    }

    [Fact]
    public void A_tensor_that_is_not_known_is_reported_or_refused()
    {
        var checkpoint = new TinyCheckpoint("llama", linear: false);
        checkpoint.Tensors["model.layers.1.self_attn.global_factor"] = ([1], [1f]);
        checkpoint.Tensors["model.layers.7.mlp.up_proj.weight"] = ([1, 1], [1f]);
        checkpoint.Save(_folder.Path);
        var logger = new Lines();
        using (CausalModel model = Load(new LoadOptions { Logger = logger }))
            Assert.Equal(["model.layers.1.self_attn.global_factor", "model.layers.7.mlp.up_proj.weight"], model.UnusedTensors.Order(StringComparer.Ordinal));
        Assert.Equal(2, logger.Messages.Count);
        Assert.Contains(logger.Messages, message => message.Contains("tensor 'model.layers.1.self_attn.global_factor' is unknown to the model", StringComparison.Ordinal));
        string refusal = Refused(new LoadOptions { Strict = true });
        Assert.Contains("is unknown to the model", refusal, StringComparison.Ordinal);
        Assert.Contains("'model.layers.1.self_attn.global_factor'", refusal, StringComparison.Ordinal);
        Assert.Contains("'model.layers.7.mlp.up_proj.weight'", refusal, StringComparison.Ordinal);
    }

    [Fact]
    public void Known_tensors_without_a_use_are_left_out_silently()
    {
        var llama = new TinyCheckpoint("llama", linear: false, configure: config => config["tie_word_embeddings"] = true);
        llama.Tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ([10], new float[10]);
        llama.Tensors["model.rotary_emb.inv_freq"] = ([10], new float[10]);
        llama.Tensors["lm_head.weight"] = ([1], [0f]);
        llama.Save(_folder.Path);
        using (CausalModel model = Load(new LoadOptions { Strict = true })) Assert.Empty(model.UnusedTensors);

        using var other = new TemporaryFolder();
        var gpt2 = new TinyCheckpoint("gpt2", linear: true);
        gpt2.Tensors["transformer.h.0.attn.bias"] = ([1, 1, 4, 4], new float[16]);
        gpt2.Tensors["transformer.h.1.attn.masked_bias"] = ([], [-1e4f]);
        gpt2.Tensors["transformer.h.1.attn.dconv_ada2.weight"] = ([1], [0f]);
        gpt2.Tensors["lm_head.weight"] = ([1], [0f]);
        gpt2.Save(other.Path);
        using CausalModel second = CausalModel.Load(other.Path, _backend, new LoadOptions { Strict = true });
        Assert.Empty(second.UnusedTensors);
    }

    [Fact]
    public void A_missing_tensor_is_named()
    {
        var checkpoint = new TinyCheckpoint("llama", linear: true);
        checkpoint.Tensors.Remove("model.layers.1.mlp.down_proj.weight");
        checkpoint.Save(_folder.Path);
        string message = Refused();
        Assert.Contains("tensor 'model.layers.1.mlp.down_proj.weight': not found", message, StringComparison.Ordinal);
        Assert.Contains("'model.layers.0.mlp.down_proj.weight'", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("llama", "model.embed_tokens.weight", new[] { 1003, 100 }, "expected shape [1003, 200], got [1003, 100]")]
    [InlineData("llama", "model.layers.0.self_attn.k_proj.weight", new[] { 120, 200 }, "expected shape [40, 200], got [120, 200]")]
    [InlineData("llama", "model.layers.1.self_attn.dwconv.weight", new[] { 6, 1, 31, 1 }, "expected shape [6, 1, 63, 1], got [6, 1, 31, 1]")]
    [InlineData("llama", "model.norm.weight", new[] { 200, 1 }, "expected shape [200], got [200, 1]")]
    [InlineData("gpt2", "transformer.h.1.mlp.c_fc.weight", new[] { 331, 200 }, "expected shape [200, 331], got [331, 200]")]
    [InlineData("gpt2", "transformer.wpe.weight", new[] { 255, 200 }, "expected shape [256, 200], got [255, 200]")]
    public void A_shape_that_contradicts_the_configuration_is_refused(string model, string name, int[] shape, string want)
    {
        var checkpoint = new TinyCheckpoint(model, linear: true);
        checkpoint.Tensors[name] = (shape, new float[shape.Aggregate(1, (a, b) => a * b)]);
        checkpoint.Save(_folder.Path);
        Assert.Contains($"tensor '{name}': {want}", Refused(), StringComparison.Ordinal);
    }

    [Fact]
    public void Weights_that_are_no_fractions_are_refused()
    {
        var file = new SafetensorsWriter();
        foreach ((string name, (int[] shape, float[] numbers)) in new TinyCheckpoint("llama", linear: false).Save(_folder.Path).Tensors)
        {
            if (name == "model.norm.weight") file.Add(name, shape, new long[numbers.Length]);
            else file.Add(name, shape, numbers);
        }

        file.Save(_folder.At("model.safetensors"));
        Assert.Contains("tensor 'model.norm.weight': expected floating-point numbers, got I64", Refused(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_tokenizer_that_cannot_be_read_stops_only_those_who_want_it()
    {
        string from = Path.Combine(Golden.Copies, "models", "llama-softmax");
        foreach (string file in Directory.EnumerateFiles(from)) File.Copy(file, Path.Combine(_folder.Path, Path.GetFileName(file)));
        _folder.Write("tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}");
        Assert.Contains("Unigram", Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, _backend)).Message, StringComparison.Ordinal);
        using CausalModel model = CausalModel.Load(_folder.Path, _backend, new LoadOptions { Tokenizer = false });
        Assert.Null(model.Tokenizer);
    }

    [Fact]
    public void What_is_no_folder_of_a_model_is_refused()
    {
        Assert.Contains("folder not found", Refused(path: _folder.At("nowhere")), StringComparison.Ordinal);
        Assert.Contains("config.json: file not found", Refused(), StringComparison.Ordinal);
        string config = _folder.Write("config.json", """{"model_type": "mamba"}""");
        Assert.Contains("model_type: 'mamba' is not supported; supported are llama and gpt2", Refused(), StringComparison.Ordinal);
        Assert.Contains("expected a model's folder, got a file", Refused(path: config), StringComparison.Ordinal);
        _folder.Write("config.json", JsonSerializer.Serialize(new TinyCheckpoint("gpt2", linear: false).Config));
        Assert.Contains("holds none of model.safetensors", Refused(), StringComparison.Ordinal);
    }

    [Fact]
    public void An_attention_that_the_backend_does_not_compute_is_refused()
    {
        new TinyCheckpoint("llama", linear: true, configure: config => config["linear_attention"] = new { local = "relu2", group_size = 8, global = true, global_factor = true, conv_kernel_size = 63 }).Save(_folder.Path);
        Assert.Contains("GroupSize: expected 0 or 16 to 1048576, got 8", Assert.Throws<NotSupportedException>(() => Load()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Texts_end_where_the_positions_do()
    {
        new TinyCheckpoint("gpt2", linear: true).Save(_folder.Path);
        using var rig = new ModelRig(Load(), capacity: 400);
        Assert.Equal(256, rig.Model.MaxPositions);
        rig.Advance(0, new int[255]);
        string message = Assert.Throws<OutOfCapacityException>(() => rig.Advance(0, 1, 2)).Message;
        Assert.Contains("at most 256 positions; slot 0 would reach 257", message, StringComparison.Ordinal);
        Assert.Equal(255, rig.State.Length(0));
        rig.Advance(0, 1);

        using var other = new TemporaryFolder();
        new TinyCheckpoint("llama", linear: false).Save(other.Path);
        using CausalModel softmax = CausalModel.Load(other.Path, _backend);
        Assert.Equal(256, softmax.MaxPositions);
    }

    [Fact]
    public void What_does_not_fit_the_model_is_refused_before_anything_moves()
    {
        new TinyCheckpoint("llama", linear: false).Save(_folder.Path);
        using var rig = new ModelRig(Load());
        var step = new Step();
        step.Advance(0, 2);
        Assert.Contains("tokens: expected 2 like the step, got 3", Wrong(rig.State, [1, 2, 3]), StringComparison.Ordinal);
        Assert.Contains("tokens: expected 0 to 1002, got 1003", Wrong(rig.State, [1, 1003]), StringComparison.Ordinal);
        Assert.Contains("tokens: expected 0 to 1002, got -1", Wrong(rig.State, [-1, 1]), StringComparison.Ordinal);
        using (AttentionState fewer = _backend.CreateState([rig.Model.AttentionSpecs[0]], 1, 64))
            Assert.Contains("state: expected 2 layers like the model, got 1", Wrong(fewer, [1, 2]), StringComparison.Ordinal);
        using (AttentionState other = _backend.CreateState([rig.Model.AttentionSpecs[0], AttentionSpec.Softmax(2, 1, 8)], 1, 64))
            Assert.Contains("state: layer 1: expected", Wrong(other, [1, 2]), StringComparison.Ordinal);
        using (KernelBackend second = BackendsUnderTest.Open("cpu"))
        using (AttentionState foreign = second.CreateState(rig.Model.AttentionSpecs, 1, 64))
            Assert.Contains("state: expected one of this cpu, got one of another cpu", Wrong(foreign, [1, 2]), StringComparison.Ordinal);
        Assert.Equal(0, rig.Model.Forwards);
        rig.Model.Forward(rig.State, step, [1, 2]);
        Assert.Equal(2, rig.State.Length(0));

        string Wrong(AttentionState state, int[] tokens) => Assert.Throws<ArgumentException>(() => rig.Model.Forward(state, step, tokens)).Message;
    }

    [Fact]
    public void A_model_that_was_disposed_says_so()
    {
        new TinyCheckpoint("gpt2", linear: false).Save(_folder.Path).SaveMedusa(_folder.Path, 1, 1);
        CausalModel model = Load();
        using AttentionState state = model.CreateState(1, 10);
        var step = new Step();
        step.Advance(0, 1);
        model.Forward(state, step, [1]);
        model.Dispose();
        model.Dispose();
        step.Clear();
        step.Advance(0, 1);
        Assert.Throws<ObjectDisposedException>(() => model.Forward(state, step, [1]));
        Assert.Equal(1, state.Length(0));
    }

    private CausalModel Load(LoadOptions? options = null) => CausalModel.Load(_folder.Path, _backend, options);

    private string Refused(LoadOptions? options = null, string? path = null) =>
        Assert.Throws<CheckpointException>(() => CausalModel.Load(path ?? _folder.Path, _backend, options)).Message;

    private float[] Logits(string folder)
    {
        using var rig = new ModelRig(CausalModel.Load(folder, _backend, new LoadOptions { Strict = true }));
        return rig.Advance(0, 5, 6, 7);
    }

    private static double[] Medusa(Checkpoint file, float[] hidden, int blocks, int count)
    {
        var all = new List<double>();
        foreach (float[] row in hidden.Chunk(TinyCheckpoint.Hidden))
        {
            for (int head = 0; head < count; head++)
            {
                double[] x = Close.Widen(row);
                for (int block = 0; block < blocks; block++)
                {
                    double[] y = Product(file[$"{head}.{block}.linear.weight"].ToFloat32(), x);
                    float[] bias = file[$"{head}.{block}.linear.bias"].ToFloat32();
                    x = [.. x.Select((c, i) => c + (y[i] + bias[i]) / (1 + Math.Exp(-y[i] - bias[i])))];
                }

                all.AddRange(Product(file[$"{head}.{blocks}.weight"].ToFloat32(), x));
            }
        }

        return [.. all];
    }

    private static double[] Product(float[] weight, double[] x) => [.. weight.Chunk(x.Length).Select(row => row.Select((w, i) => w * x[i]).Sum())];

    private sealed class Lines : ILogger
    {
        public List<string> Messages { get; } = [];

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            Assert.Equal(LogLevel.Warning, logLevel);
            Messages.Add(formatter(state, exception));
        }
    }
}
