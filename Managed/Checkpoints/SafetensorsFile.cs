using System.Diagnostics.CodeAnalysis;

namespace Treeline;

/// <summary>A safetensors file, mapped for reading: tensors by name, used in place.</summary>
/// <remarks>
/// Format: 8 bytes header length, a JSON header <c>{"name": {"dtype", "shape", "data_offsets": [begin, end]}, …, "__metadata__": {…}}</c>, then the tensors' bytes
/// without gaps. Nothing that the header says is believed before it has been checked against the file's length.
/// </remarks>
public sealed class SafetensorsFile : ITensorFile
{
    private readonly CheckpointMemory _memory;
    private readonly Dictionary<string, CheckpointTensor> _byName;

    /// <summary>Checks the header of a file that is in memory, which it owns from then on.</summary>
    internal SafetensorsFile(string path, CheckpointMemory memory)
    {
        (Path, _memory) = (path, memory);
        SafetensorsHeader header = SafetensorsHeader.Read(path, memory);
        Metadata = header.Metadata;
        Tensors = header.Tensors;
        _byName = Tensors.ToDictionary(tensor => tensor.Name);
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>All tensors, in the order of their bytes.</summary>
    public IReadOnlyList<CheckpointTensor> Tensors { get; }

    /// <summary>The header's <c>__metadata__</c>; empty where there is none.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>A tensor by its name.</summary>
    /// <param name="name">The name.</param>
    /// <exception cref="CheckpointException">There is none of that name.</exception>
    public CheckpointTensor this[string name] => TryGet(name, out CheckpointTensor? tensor) ? tensor : throw NearestNames.Missing(Path, name, _byName.Keys);

    /// <summary>Maps a file and checks its header.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="CheckpointException">It is missing, cannot be read, or is no valid safetensors file; the message says where.</exception>
    public static SafetensorsFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        var memory = new MappedFile(path);
        try
        {
            return new SafetensorsFile(path, memory);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    /// <summary>Looks for a tensor.</summary>
    /// <param name="name">The name.</param>
    /// <param name="tensor">Receives it, null where there is none.</param>
    public bool TryGet(string name, [NotNullWhen(true)] out CheckpointTensor? tensor) => _byName.TryGetValue(name, out tensor);

    /// <summary>Unmaps the file; its tensors' memory is gone.</summary>
    public void Dispose() => _memory.Dispose();
}
