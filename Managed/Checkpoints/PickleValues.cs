using Treeline.Kernels;

namespace Treeline;

/// <summary>A tuple, a list or a <c>torch.Size</c>.</summary>
internal sealed class PickleSequence(List<object?> items)
{
    public List<object?> Items { get; } = items;
}

/// <summary>A dictionary, in the order in which it was filled; keys of any kind.</summary>
internal sealed class PickleDictionary
{
    public List<(object? Key, object? Value)> Items { get; } = new(0);

    /// <summary>The value of a string key, null where there is none.</summary>
    public object? this[string key] => Items.Find(item => item.Key is string name && name == key).Value;
}

/// <summary>The few names of Python code that a checkpoint of tensors needs; data to us, never run.</summary>
internal enum PickleGlobalKind
{
    OrderedDictionary,
    Size,
    RebuildTensor,
    RebuildParameter,
    Storage,
}

/// <summary>One of those names.</summary>
/// <param name="Kind">What it stands for.</param>
/// <param name="Name">Module and name, as Python writes them.</param>
/// <param name="Stored">Storages: what their elements are.</param>
internal sealed record PickleGlobal(PickleGlobalKind Kind, string Name, StoredElement? Stored = null)
{
    /// <summary>The known ones; null for any other.</summary>
    public static PickleGlobal? Find(string module, string name) => (module, name) switch
    {
        ("collections", "OrderedDict") => new(PickleGlobalKind.OrderedDictionary, "collections.OrderedDict"),
        ("torch", "Size") => new(PickleGlobalKind.Size, "torch.Size"),
        ("torch._utils", "_rebuild_tensor_v2") => new(PickleGlobalKind.RebuildTensor, "torch._utils._rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter") => new(PickleGlobalKind.RebuildParameter, "torch._utils._rebuild_parameter"),
        ("torch", _) when StoredElement.Find(name) is StoredElement stored => new(PickleGlobalKind.Storage, $"torch.{name}", stored),
        _ => null,
    };
}

/// <summary>What a storage's elements are.</summary>
/// <param name="Name">In safetensors' words.</param>
/// <param name="Size">Bytes of one.</param>
internal sealed record StoredElement(string Name, int Size)
{
    /// <summary>The type for kernels, null where none reads it: such tensors (old masks) may be in a file, but not be asked for.</summary>
    public ElementType? Type => SafetensorsType.Supported(Name);

    /// <summary>By the storage class's name.</summary>
    public static StoredElement? Find(string storage) => storage switch
    {
        "FloatStorage" => new("F32", 4),
        "BFloat16Storage" => new("BF16", 2),
        "HalfStorage" => new("F16", 2),
        "DoubleStorage" => new("F64", 8),
        "LongStorage" => new("I64", 8),
        "IntStorage" => new("I32", 4),
        "ShortStorage" => new("I16", 2),
        "ByteStorage" => new("U8", 1),
        "CharStorage" => new("I8", 1),
        "BoolStorage" => new("BOOL", 1),
        _ => null,
    };
}

/// <summary>A run of elements in an entry of the zip file.</summary>
/// <param name="Element">What they are.</param>
/// <param name="Key">The entry's name after <c>data/</c>.</param>
/// <param name="Count">Their number.</param>
internal sealed record PickleStorage(StoredElement Element, string Key, long Count);

/// <summary>A view into a storage.</summary>
/// <param name="Storage">The storage.</param>
/// <param name="Offset">Its first element there.</param>
/// <param name="Shape">Sizes, outermost first.</param>
/// <param name="Strides">Elements between neighbours of each dimension, none negative.</param>
internal sealed record PickleTensor(PickleStorage Storage, long Offset, int[] Shape, long[] Strides);
