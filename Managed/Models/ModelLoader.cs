using Microsoft.Extensions.Logging;
using Treeline.Kernels;

namespace Treeline;

/// <summary>Turns a checkpoint's folder into a running model.</summary>
internal static partial class ModelLoader
{
    // Tensors that a refusal names besides the first.
    private const int Named = 5;

    public static CausalModel Load(string folder, KernelBackend backend, LoadOptions options)
    {
        if (!Directory.Exists(folder)) throw new CheckpointException(folder, null, File.Exists(folder) ? "expected a model's folder, got a file" : "folder not found");
        ModelConfig config = ModelConfig.Load(folder);
        var unused = new List<string>();
        ModelWeights? weights = null;
        MedusaHeads? medusa = null;
        try
        {
            weights = Open(folder);
            medusa = ResidualMedusaHeads.Load(folder, config, Open, unused);
            var extras = new ModelExtras(options.Tokenizer ? TextTokenizer.Load(folder) : null, medusa);
            (CausalModel model, Func<ModelConfig, string, bool> isKnownUnused) = config.ModelType == "gpt2"
                ? ((CausalModel)new Gpt2Model(config, weights, extras), (Func<ModelConfig, string, bool>)Gpt2Model.IsKnownUnused)
                : (new LlamaModel(config, weights, extras), LlamaModel.IsKnownUnused);
            unused.InsertRange(0, weights.Unused.Where(name => !isKnownUnused(config, name)));
            Report(folder, unused, options);
            weights.Close();
            model.UnusedTensors = unused;
            return model;
        }
        catch
        {
            medusa?.Dispose();
            weights?.Dispose();
            throw;
        }

        ModelWeights Open(string path) => new(backend, Checkpoint.Open(path), options.WeightForm);
    }

    private static void Report(string folder, List<string> unused, LoadOptions options)
    {
        if (unused.Count == 0) return;
        if (options.Strict)
        {
            string others = unused.Count == 1 ? "" : $", and so {(unused.Count == 2 ? "is" : "are")} {string.Join(", ", unused.Skip(1).Take(Named).Select(name => $"'{name}'"))}{(unused.Count > Named + 1 ? ", …" : "")}";
            throw new CheckpointException(folder, unused[0], $"is unknown to the model{others}");
        }

        if (options.Logger is null) return;
        foreach (string name in unused) LogUnused(options.Logger, folder, name);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Folder}: tensor '{Name}' is unknown to the model and not used")]
    private static partial void LogUnused(ILogger logger, string folder, string name);
}
