using System.Diagnostics.CodeAnalysis;
using System.Text.Json;

namespace Treeline;

/// <summary>A model's stored tensors as one view: safetensors or PyTorch files, single or sharded.</summary>
/// <remarks>Files are mapped, not read: a tensor costs memory when it is touched. Nothing stored is ever run.</remarks>
public sealed class Checkpoint : IDisposable
{
    // In the order in which they are looked for in a folder.
    private static readonly string[] KnownFiles =
        ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.pt"];

    private readonly ITensorFile[] _files;
    private readonly Dictionary<string, CheckpointTensor> _byName;

    private Checkpoint(string path, ITensorFile[] files, IReadOnlyList<CheckpointTensor> tensors)
    {
        (Path, _files, Tensors) = (path, files, tensors);
        _byName = tensors.ToDictionary(tensor => tensor.Name);
        Metadata = files.Length == 1 ? files[0].Metadata : new Dictionary<string, string>();
    }

    /// <summary>The file that was opened: a single one, or the index of several.</summary>
    public string Path { get; }

    /// <summary>All tensors.</summary>
    public IReadOnlyList<CheckpointTensor> Tensors { get; }

    /// <summary>A single safetensors file's <c>__metadata__</c>; else empty.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>A tensor by its name.</summary>
    /// <param name="name">The name.</param>
    /// <exception cref="CheckpointException">There is none of that name; the message says which come nearest.</exception>
    public CheckpointTensor this[string name] => TryGet(name, out CheckpointTensor? tensor) ? tensor : throw NearestNames.Missing(Path, name, _byName.Keys);

    /// <summary>Opens a model's folder, or one file: safetensors, a PyTorch zip file, or an index of shards.</summary>
    /// <param name="path">The folder or the file.</param>
    /// <exception cref="CheckpointException">Nothing is there, or something is damaged; the message names file and tensor.</exception>
    public static Checkpoint Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string file = path;
        if (Directory.Exists(path))
        {
            file = KnownFiles.Select(name => System.IO.Path.Combine(path, name)).FirstOrDefault(File.Exists)
                ?? throw new CheckpointException(path, null, $"holds none of {string.Join(", ", KnownFiles)}");
        }

        if (file.EndsWith(".json", StringComparison.OrdinalIgnoreCase)) return OpenShards(file);
        ITensorFile single = OpenFile(file);
        return new Checkpoint(file, [single], single.Tensors);
    }

    /// <summary>Looks for a tensor.</summary>
    /// <param name="name">The name.</param>
    /// <param name="tensor">Receives it, null where there is none.</param>
    public bool TryGet(string name, [NotNullWhen(true)] out CheckpointTensor? tensor) => _byName.TryGetValue(name, out tensor);

    /// <summary>Unmaps the files; their tensors' memory is gone.</summary>
    public void Dispose()
    {
        foreach (ITensorFile file in _files) file.Dispose();
    }

    /// <summary>Reads a file that is in memory; it owns the memory from then on, and gives it back where it throws.</summary>
    /// <remarks>What a file is, its first bytes say: names lie.</remarks>
    internal static ITensorFile OpenFile(string path, CheckpointMemory memory)
    {
        try
        {
            return PyTorchFile.IsOne(memory) ? new PyTorchFile(path, memory) : new SafetensorsFile(path, memory);
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    private static ITensorFile OpenFile(string path) => OpenFile(path, new MappedFile(path));

    // {"weight_map": {"tensor's name": "shard's file name", …}}; tensors that the map does not list are not part of the checkpoint.
    private static Checkpoint OpenShards(string index)
    {
        JsonFields map = JsonFile.Read(index).Object("weight_map");
        string folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(index))!;
        var shards = new Dictionary<string, (ITensorFile File, Dictionary<string, CheckpointTensor> ByName)>();
        var tensors = new List<CheckpointTensor>();
        try
        {
            foreach (JsonProperty property in map.Value.EnumerateObject())
            {
                string name = map.Text(property);
                string shard = property.Value.ValueKind == JsonValueKind.String ? map.Text(property.Value) : throw map.Bad(name, "expected a string");
                if (!shards.TryGetValue(shard, out var found))
                {
                    if (!IsPlainName(shard)) throw new CheckpointException(index, name, $"'{shard}': expected the name of a file in the same folder");
                    ITensorFile file = OpenFile(System.IO.Path.Combine(folder, shard));
                    shards.Add(shard, found = (file, []));
                    foreach (CheckpointTensor tensor in file.Tensors) found.ByName.Add(tensor.Name, tensor);
                }

                tensors.Add(found.ByName.TryGetValue(name, out CheckpointTensor? wanted) ? wanted : throw NearestNames.Missing(found.File.Path, name, found.ByName.Keys));
            }

            return new Checkpoint(index, [.. shards.Values.Select(shard => shard.File)], tensors);
        }
        catch
        {
            foreach (var shard in shards.Values) shard.File.Dispose();
            throw;
        }
    }

    private static bool IsPlainName(string name) =>
        name.Length > 0 && name is not "." and not ".." && name.AsSpan().IndexOfAny("/\\:\0") < 0;
}
