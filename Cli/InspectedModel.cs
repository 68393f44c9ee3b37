using System.Globalization;
using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>A checkpoint as `inspect` sees it: its headers, and what its configuration means where this version knows the model.</summary>
internal sealed class InspectedModel : IDisposable
{
    private static readonly string[] HeadFiles = ["medusa_lm_head.safetensors", "medusa_lm_head.pt"];

    private InspectedModel(Checkpoint checkpoint, Checkpoint? heads, bool isFolder) => (Checkpoint, Heads, IsFolder) = (checkpoint, heads, isFolder);

    public Checkpoint Checkpoint { get; }

    public bool IsFolder { get; }

    /// <summary>Its configuration; null for a single file, and for a model that this version does not know.</summary>
    public ModelConfig? Config { get; private init; }

    /// <summary>Why there is no configuration; null where there is one, or none is expected.</summary>
    public string? WhyNoConfig { get; private init; }

    /// <summary>Size of a sequence's state; null without a configuration.</summary>
    public StateSize? State => Config is { } config ? StateSize.Of(Enumerable.Range(0, config.Layers).Select(config.AttentionOf)) : null;

    public TextTokenizer? Tokenizer { get; private init; }

    /// <summary>Why there is no tokenizer; null where there is one, or nothing of it.</summary>
    public string? WhyNoTokenizer { get; private init; }

    /// <summary>Tensors of the model and of its Medusa heads.</summary>
    public IReadOnlyList<CheckpointTensor> Tensors => [.. Checkpoint.Tensors, .. Heads?.Tensors ?? []];

    /// <summary>Number of Medusa heads: their tensors' names begin with the head's number.</summary>
    public int MedusaHeads => Heads?.Tensors.Select(tensor => tensor.Name.Split('.')[0]).Where(word => int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out _)).Distinct().Count() ?? 0;

    /// <summary>The Medusa heads' own file; null where there is none.</summary>
    public Checkpoint? Heads { get; }

    /// <exception cref="CheckpointException">Something is missing or damaged.</exception>
    public static InspectedModel Open(string path)
    {
        bool isFolder = Directory.Exists(path);
        if (!isFolder && !File.Exists(path)) throw ToolException.Input($"{(path.Length == 0 ? "MODEL" : path)}: no such model folder or file");
        (ModelConfig? config, string? why) = isFolder ? ReadConfig(path) : (null, null);
        (TextTokenizer? tokenizer, string? whyNoTokenizer) = isFolder ? ReadTokenizer(path) : (null, null);
        string? heads = isFolder ? HeadFiles.Select(name => Path.Combine(path, name)).FirstOrDefault(File.Exists) : null;
        Checkpoint checkpoint = Checkpoint.Open(path);
        try
        {
            return new InspectedModel(checkpoint, heads is null ? null : Checkpoint.Open(heads), isFolder) { Config = config, WhyNoConfig = why, Tokenizer = tokenizer, WhyNoTokenizer = whyNoTokenizer };
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <summary>Numbers in a checkpoint, of types that no kernel reads too.</summary>
    public static long Numbers(Checkpoint checkpoint)
    {
        long numbers = 0;
        foreach (CheckpointTensor tensor in checkpoint.Tensors)
        {
            long count = 1;
            foreach (int size in tensor.Shape) count *= size;
            numbers += count;
        }

        return numbers;
    }

    /// <summary>The usual name of a model's attention.</summary>
    public static string Kind(ModelConfig config) => config.Linear switch
    {
        null => "softmax",
        { Local: not LocalKind.None, Global: true, ConvKernelSize: > 0 } => "augmented",
        var linear => string.Join('_', Parts(linear, "local", "global", "conv")),
    };

    /// <summary>The same in words.</summary>
    public static string Describe(ModelConfig config) => config.Linear is not { } linear ? "softmax"
        : $"{Kind(config)}: {string.Join(" + ", Parts(linear, $"relu² inside groups of {linear.GroupSize}", $"{(linear.GlobalFactor ? "α · " : "")}earlier groups", $"convolution of {(linear.ConvKernelSize + 1) / 2} taps"))}";

    public void Dispose()
    {
        Checkpoint.Dispose();
        Heads?.Dispose();
    }

    private static IEnumerable<string> Parts(LinearAttentionConfig linear, string local, string global, string convolution)
    {
        if (linear.Local != LocalKind.None) yield return local;
        if (linear.Global) yield return global;
        if (linear.ConvKernelSize > 0) yield return convolution;
    }

    private static (ModelConfig? Config, string? Why) ReadConfig(string folder)
    {
        if (!File.Exists(Path.Combine(folder, "config.json"))) return (null, "there is no config.json");
        try
        {
            return (ModelConfig.Load(folder), null);
        }
        catch (CheckpointException e) when (e.IsUnsupported)
        {
            return (null, e.Message);
        }
    }

    // The rest is worth seeing all the same.
    private static (TextTokenizer? Tokenizer, string? Why) ReadTokenizer(string folder)
    {
        try
        {
            return (TextTokenizer.Load(folder), null);
        }
        catch (CheckpointException e)
        {
            return (null, e.Message);
        }
    }
}
