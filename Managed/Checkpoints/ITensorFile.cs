namespace Treeline;

/// <summary>A file of named tensors, whatever its format.</summary>
internal interface ITensorFile : IDisposable
{
    /// <summary>The file.</summary>
    string Path { get; }

    /// <summary>All tensors; no name occurs twice.</summary>
    IReadOnlyList<CheckpointTensor> Tensors { get; }

    /// <summary>Strings that the format keeps beside them.</summary>
    IReadOnlyDictionary<string, string> Metadata { get; }
}
