using Treeline.Tests.Harness;

namespace Treeline.Tests.Cli;

/// <summary>Copies of recorded cases with something changed.</summary>
internal static class CaseFiles
{
    /// <summary>Copies a case file.</summary>
    /// <param name="name">The recorded case, such as <c>tree/small_…</c>.</param>
    /// <param name="to">The file to write.</param>
    /// <param name="metadata">Metadata to change; null removes a key.</param>
    /// <param name="without">Tensors to leave out.</param>
    /// <param name="edit">Changes the numbers of a tensor.</param>
    /// <param name="more">Tensors to add.</param>
    public static string Copy(string name, string to, Dictionary<string, string?>? metadata = null, string[]? without = null,
        Action<string, float[]>? edit = null, Action<SafetensorsWriter>? more = null) => CopyFile(Golden.Locate(name), to, metadata, without, edit, more);

    /// <summary>Copies a safetensors file, wherever it is.</summary>
    /// <inheritdoc cref="Copy"/>
    public static string CopyFile(string from, string to, Dictionary<string, string?>? metadata = null, string[]? without = null,
        Action<string, float[]>? edit = null, Action<SafetensorsWriter>? more = null)
    {
        using SafetensorsFile file = SafetensorsFile.Open(from);
        var writer = new SafetensorsWriter();
        foreach ((string key, string value) in file.Metadata) writer.Metadata[key] = value;
        foreach ((string key, string? value) in metadata ?? [])
        {
            if (value is null) writer.Metadata.Remove(key);
            else writer.Metadata[key] = value;
        }

        foreach (CheckpointTensor tensor in file.Tensors)
        {
            if (without?.Contains(tensor.Name) ?? false) continue;
            switch (tensor.StoredType)
            {
                case "F32":
                    float[] numbers = tensor.ToFloat32();
                    edit?.Invoke(tensor.Name, numbers);
                    writer.Add(tensor.Name, tensor.Shape, numbers);
                    break;
                case "I32":
                    writer.Add(tensor.Name, tensor.Shape, tensor.ToInt32());
                    break;
                default:
                    writer.Add(tensor.Name, tensor.Shape, Array.ConvertAll(tensor.ToInt32(), x => (long)x));
                    break;
            }
        }

        more?.Invoke(writer);
        writer.Save(to);
        return to;
    }
}
