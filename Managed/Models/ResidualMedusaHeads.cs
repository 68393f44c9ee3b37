using Treeline.Kernels;

namespace Treeline;

/// <summary>Medusa's heads as its checkpoints store them: residual blocks <c>x + SiLU(W x + b)</c>, then a linear layer to the vocabulary.</summary>
internal sealed class ResidualMedusaHeads : MedusaHeads
{
    private static readonly string[] KnownFiles = ["medusa_lm_head.safetensors", "medusa_lm_head.pt"];

    private readonly ModelWeights _weights;
    private readonly Head[] _heads;
    private readonly ScratchRows _block, _sum, _logits;
    private readonly ScratchView _rows;

    private ResidualMedusaHeads(ModelWeights weights, Head[] heads, int hidden, int vocabulary)
    {
        (_weights, _heads) = (weights, heads);
        _block = new ScratchRows(weights.Backend, ElementType.Float32, hidden);
        _sum = new ScratchRows(weights.Backend, ElementType.Float32, hidden);
        _logits = new ScratchRows(weights.Backend, ElementType.Float32, heads.Length * vocabulary);
        _rows = _logits.Split(heads.Length);
        for (int i = 0; i < heads.Length; i++) heads[i].Logits = _logits.Columns(i * vocabulary, vocabulary);
    }

    public override int Count => _heads.Length;

    /// <summary>The heads beside a model, null where there are none.</summary>
    /// <param name="folder">The model's folder.</param>
    /// <param name="config">The model's configuration.</param>
    /// <param name="open">Takes a file's tensors into the backend's memory.</param>
    /// <param name="unused">Receives the names of tensors that no head has.</param>
    /// <exception cref="CheckpointException">A tensor is missing or of another shape.</exception>
    public static ResidualMedusaHeads? Load(string folder, ModelConfig config, Func<string, ModelWeights> open, List<string> unused)
    {
        string? file = KnownFiles.Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);
        if (file is null) return null;
        ModelWeights weights = open(file);
        try
        {
            (int heads, int blocks) = Counts(Path.Combine(folder, "medusa_config.json"), weights);
            int hidden = config.HiddenSize;
            var read = new List<Head>();
            for (int i = 0; i < heads; i++)
            {
                var residual = new List<Projection>();
                for (int j = 0; j < blocks; j++) residual.Add(weights.Projection($"{i}.{j}.linear", hidden, hidden, bias: true));
                read.Add(new Head([.. residual], weights.Matrix($"{i}.{blocks}.weight", config.VocabularySize, hidden)));
            }

            unused.AddRange(weights.Unused);
            weights.Close();
            return new ResidualMedusaHeads(weights, [.. read], hidden, config.VocabularySize);
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    public override DeviceTensor Forward(DeviceTensor hidden)
    {
        ArgumentNullException.ThrowIfNull(hidden);
        KernelBackend backend = _weights.Backend;
        int n = hidden.Rows;
        DeviceTensor block = _block.First(n), sum = _sum.First(n);
        foreach (Head head in _heads)
        {
            DeviceTensor x = hidden;
            foreach (Projection residual in head.Residual)
            {
                residual.Apply(x, block);
                backend.Silu(block, block);
                backend.Add(x, block, sum);
                x = sum;
            }

            backend.Linear(x, head.Output, null, head.Logits!.First(n));
        }

        return _rows.First(n);
    }

    protected override void Dispose(bool disposing)
    {
        _block.Dispose();
        _sum.Dispose();
        _logits.Dispose();
        _weights.Dispose();
    }

    // Numbers of heads and of residual blocks in each: what the configuration says, else what the file holds.
    private static (int Heads, int Blocks) Counts(string configFile, ModelWeights weights)
    {
        if (File.Exists(configFile))
        {
            JsonFields config = JsonFile.Read(configFile);
            return (config.Positive("medusa_num_heads"), config.OptionalPositive("medusa_num_layers") ?? 1);
        }

        int heads = 0, blocks = 0;
        while (weights.Has($"0.{blocks}.linear.weight")) blocks++;
        while (weights.Has($"{heads}.{blocks}.weight")) heads++;
        return (Math.Max(1, heads), blocks);                    // none at all: the first one's weight is what is missing
    }

    private sealed record Head(Projection[] Residual, WeightMatrix Output)
    {
        public ScratchView? Logits { get; set; }
    }
}
