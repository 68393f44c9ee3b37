using System.Globalization;
using System.Text.Json;
using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>A recorded case file: metadata and tensors.</summary>
internal sealed class CaseFile : IDisposable
{
    private readonly IReadOnlyDictionary<string, string> _metadata;
    private readonly SafetensorsFile _tensors;

    private CaseFile(string path, SafetensorsFile tensors)
    {
        Path = path;
        _tensors = tensors;
        _metadata = tensors.Metadata;
    }

    public string Path { get; }

    /// <summary>The operation.</summary>
    /// <exception cref="ToolException">The file does not say.</exception>
    public string Op => Text("op", null);

    /// <summary>The variant.</summary>
    /// <exception cref="ToolException">The file does not say.</exception>
    public string Kind => Text("kind", null);

    /// <summary>What a reader should know, one line each.</summary>
    public List<string> Warnings { get; } = [];

    /// <summary>Names of the tensors to be computed, null where the file does not say.</summary>
    public string[]? Outputs => _metadata.TryGetValue("outputs", out string? names)
        ? names.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries) : null;

    /// <exception cref="ToolException">It is missing or damaged.</exception>
    public static CaseFile Open(string path)
    {
        if (!File.Exists(path)) throw ToolException.Input($"{path}: no such case file or model folder");
        return new CaseFile(path, SafetensorsFile.Open(path));
    }

    /// <summary>A word of the metadata; null as fallback: it must be there.</summary>
    public string Text(string key, string? fallback) => _metadata.TryGetValue(key, out string? text) ? text
        : fallback ?? throw ToolException.Input($"{Path}: {key} is missing from the metadata");

    /// <summary>A whole number of the metadata.</summary>
    public int Whole(string key, int fallback)
    {
        if (!_metadata.TryGetValue(key, out string? text)) return fallback;
        return int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) ? value
            : throw ToolException.Input($"{Path}: {key}: expected a whole number, got {text}");
    }

    /// <summary>A number of the metadata; null as fallback: it must be there.</summary>
    public double Real(string key, double? fallback)
    {
        if (!_metadata.TryGetValue(key, out string? text)) return fallback ?? throw ToolException.Input($"{Path}: {key} is missing from the metadata");
        return double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && double.IsFinite(value) ? value
            : throw ToolException.Input($"{Path}: {key}: expected a number, got {text}");
    }

    /// <summary>Medusa's list of choices.</summary>
    public int[][] Choices()
    {
        string text = Text("choices", null);
        try
        {
            return ChoiceList.Parse(text);
        }
        catch (JsonException e)
        {
            throw ToolException.Input($"{Path}: choices: {e.Message}", e);
        }
    }

    /// <summary>A tensor, null where the file has none of the name.</summary>
    public CheckpointTensor? Find(string name) => _tensors.TryGet(name, out CheckpointTensor? tensor) ? tensor : null;

    public bool Has(string name) => _tensors.TryGet(name, out _);

    /// <summary>A tensor that must be there.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="shape">Its shape, -1 for any size; nothing: any shape.</param>
    public CheckpointTensor Require(string name, params ReadOnlySpan<int> shape)
    {
        CheckpointTensor tensor = Find(name) ?? throw ToolException.Input($"{Path}: tensor {name} is missing");
        bool fits = shape.IsEmpty || tensor.Shape.Length == shape.Length;
        for (int i = 0; fits && i < shape.Length; i++) fits = shape[i] < 0 || shape[i] == tensor.Shape[i];
        return fits ? tensor : throw ToolException.Input($"{Path}: {name}: expected [{string.Join(", ", shape.ToArray())}], got {tensor}");
    }

    /// <summary>The real numbers of an input tensor that must be there; the shape as for <see cref="Require"/>.</summary>
    /// <exception cref="ToolException">It is missing, of another shape, or holds integers.</exception>
    public float[] Floats(string name, params ReadOnlySpan<int> shape)
    {
        CheckpointTensor tensor = Require(name, shape);
        return tensor.ElementType.IsFloat() ? tensor.ToFloat32() : throw ToolException.Input($"{Path}: {name}: expected floating-point numbers, got {tensor}");
    }

    /// <summary>Refuses a case that asks for tensors which its operation does not give.</summary>
    public void RequireOutputs(params ReadOnlySpan<string> known)
    {
        foreach (string output in Outputs ?? [])
            if (!known.Contains(output)) throw ToolException.Unsupported($"{Path}: output {output} is unknown to op {Op}; expected {string.Join(", ", known.ToArray())}");
    }

    /// <summary>Warns of tensors that the operation does not read.</summary>
    public void WarnOfUnread(params ReadOnlySpan<string> read)
    {
        foreach (CheckpointTensor tensor in _tensors.Tensors)
            if (!read.Contains(tensor.Name)) Warnings.Add($"{Path}: tensor {tensor.Name} is not read by op {Op}");
    }

    public void Dispose() => _tensors.Dispose();
}
