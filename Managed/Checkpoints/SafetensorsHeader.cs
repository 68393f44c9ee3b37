using System.Buffers.Binary;
using System.Text.Json;
using Treeline.Kernels;

namespace Treeline;

/// <summary>Reads and checks a safetensors header; memory stays in proportion to the header's bytes, which are in the file.</summary>
internal sealed class SafetensorsHeader
{
    /// <summary>The format's own limit on the header's length.</summary>
    private const long MaxHeader = 100_000_000;

    /// <summary>More dimensions than any tensor has; a longer shape is refused before it is stored.</summary>
    internal const int MaxRank = 16;

    private readonly string _file;
    private readonly CheckpointMemory _memory;
    private readonly long _dataStart;
    private readonly Dictionary<string, string> _metadata = [];
    private readonly HashSet<string> _names = [];
    private readonly List<(long Begin, long End, CheckpointTensor Tensor)> _entries = [];
    private readonly List<int> _shape = [];

    private SafetensorsHeader(string file, CheckpointMemory memory, long dataStart) => (_file, _memory, _dataStart) = (file, memory, dataStart);

    public IReadOnlyDictionary<string, string> Metadata => _metadata;

    /// <summary>In the order of their bytes.</summary>
    public IReadOnlyList<CheckpointTensor> Tensors { get; private set; } = [];

    public static SafetensorsHeader Read(string file, CheckpointMemory memory)
    {
        if (memory.Length < 8) throw new CheckpointException(file, null, $"truncated: a safetensors file begins with 8 bytes, this one has {memory.Length}");
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(memory.Span(0, 8));
        if (length > MaxHeader) throw new CheckpointException(file, null, $"header length {length} is over the format's limit of {MaxHeader}: no safetensors file");
        if ((long)length > memory.Length - 8) throw new CheckpointException(file, null, $"truncated: header length {length}, but {memory.Length - 8} bytes follow");

        var header = new SafetensorsHeader(file, memory, 8 + (long)length);
        try
        {
            header.Parse(memory.Span(8, (int)length));
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)       // the latter: a string that is no UTF-8
        {
            throw new CheckpointException(file, null, $"header is no valid JSON: {e.Message}", e);
        }

        header.CheckLayout();
        return header;
    }

    private void Parse(ReadOnlySpan<byte> json)
    {
        // The reader's own limit of 64 levels refuses nesting; strictness is its default.
        var reader = new Utf8JsonReader(json);
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartObject) throw Bad(null, "header: expected an object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = reader.GetString()!;
            if (!_names.Add(name)) throw Bad(name, "listed twice");
            reader.Read();
            if (name == "__metadata__") ParseMetadata(ref reader);
            else ParseTensor(ref reader, name);
        }

        reader.Read();                                                                  // refuses anything but spaces after the object
    }

    private void ParseMetadata(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Bad(null, "__metadata__: expected an object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String) throw Bad(null, $"__metadata__.{key}: expected a string");
            if (!_metadata.TryAdd(key, reader.GetString()!)) throw Bad(null, $"__metadata__.{key}: listed twice");
        }
    }

    private void ParseTensor(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Bad(name, "expected an object");
        string? type = null;
        int[]? shape = null;
        (long Begin, long End)? range = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = reader.GetString()!;
            reader.Read();
            switch (key)
            {
                case "dtype" when type is null:
                    type = reader.TokenType == JsonTokenType.String ? reader.GetString()! : throw Bad(name, "dtype: expected a string");
                    break;
                case "shape" when shape is null:
                    shape = ParseShape(ref reader, name);
                    break;
                case "data_offsets" when range is null:
                    range = ParseRange(ref reader, name);
                    break;
                case "dtype" or "shape" or "data_offsets":
                    throw Bad(name, $"{key}: listed twice");
                default:
                    reader.Skip();
                    break;
            }
        }

        if (type is null) throw Bad(name, "dtype is missing");
        if (shape is null) throw Bad(name, "shape is missing");
        if (range is not var (begin, end)) throw Bad(name, "data_offsets is missing");
        Add(name, type, shape, begin, end);
    }

    private int[] ParseShape(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartArray) throw Bad(name, "shape: expected an array");
        _shape.Clear();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            long size = Whole(ref reader, name, "shape");
            if (size > int.MaxValue) throw Bad(name, $"shape: expected sizes up to {int.MaxValue}, got {size}");
            if (_shape.Count == MaxRank) throw Bad(name, $"shape: expected at most {MaxRank} sizes");
            _shape.Add((int)size);
        }

        return [.. _shape];
    }

    private (long, long) ParseRange(ref Utf8JsonReader reader, string name)
    {
        if (reader.TokenType != JsonTokenType.StartArray) throw Bad(name, "data_offsets: expected an array");
        reader.Read();
        long begin = Whole(ref reader, name, "data_offsets");
        reader.Read();
        long end = Whole(ref reader, name, "data_offsets");
        if (!reader.Read() || reader.TokenType != JsonTokenType.EndArray) throw Bad(name, "data_offsets: expected two numbers");
        return (begin, end);
    }

    private long Whole(ref Utf8JsonReader reader, string name, string key)
    {
        if (reader.TokenType == JsonTokenType.Number && reader.TryGetInt64(out long number) && number >= 0) return number;
        throw Bad(name, $"{key}: expected whole numbers from 0 to {long.MaxValue}");
    }

    private void Add(string name, string type, int[] shape, long begin, long end)
    {
        long room = _memory.Length - _dataStart;
        if (begin > end) throw Bad(name, $"data_offsets: begin {begin} lies after end {end}");
        if (end > room) throw Bad(name, $"data_offsets: end {end} lies past the file's {room} bytes of data");
        if (SafetensorsType.Bits(type) is int bits)
        {
            // Bits, not bytes: some types that the format knows hold two elements in a byte. Eight of 63 bits fit into 128.
            long? elements = CheckpointTensor.Bytes(shape, 1);
            if (elements is not long count || (Int128)count * bits != (Int128)(end - begin) * 8)
                throw Bad(name, $"shape [{string.Join(", ", shape)}] of {type} does not take the {end - begin} bytes that data_offsets gives it");
        }

        long at = _dataStart + begin;
        CheckpointMemory memory = _memory;
        _entries.Add((begin, end, new CheckpointTensor(_file, name, type, SafetensorsType.Supported(type), shape, end - begin, () => memory.Address(at))));
    }

    // The format allows no gaps and no overlaps, so that no byte of a file is hidden or read as two things.
    private void CheckLayout()
    {
        _entries.Sort((x, y) => (x.Begin, x.End).CompareTo((y.Begin, y.End)));
        long at = 0;
        foreach ((long begin, long end, CheckpointTensor tensor) in _entries)
        {
            if (begin < at) throw Bad(tensor.Name, $"data_offsets: begin {begin} lies inside another tensor, which ends at {at}");
            if (begin > at) throw Bad(tensor.Name, $"data_offsets: begin {begin} leaves a gap after {at}");
            at = end;
        }

        long room = _memory.Length - _dataStart;
        if (at != room) throw Bad(null, $"the tensors take {at} bytes, the file holds {room}");
        Tensors = [.. _entries.Select(entry => entry.Tensor)];
    }

    private CheckpointException Bad(string? tensor, string message) => new(_file, tensor, message);
}

/// <summary>The format's words for element types.</summary>
internal static class SafetensorsType
{
    /// <summary>The element type, null for those that no kernel reads.</summary>
    public static ElementType? Supported(string name) => name switch
    {
        "F32" => ElementType.Float32,
        "BF16" => ElementType.BFloat16,
        "F16" => ElementType.Float16,
        "F64" => ElementType.Float64,
        "I64" => ElementType.Int64,
        "I32" => ElementType.Int32,
        "U8" => ElementType.UInt8,
        _ => null,
    };

    /// <summary>The format's word for an element type.</summary>
    public static string Name(ElementType type) => type switch
    {
        ElementType.Float32 => "F32",
        ElementType.BFloat16 => "BF16",
        ElementType.Float16 => "F16",
        ElementType.Float64 => "F64",
        ElementType.Int64 => "I64",
        ElementType.Int32 => "I32",
        ElementType.UInt8 => "U8",
        _ => throw new ArgumentOutOfRangeException(nameof(type), type, "unknown element type"),
    };

    /// <summary>Bits of an element, null for a type that is newer than this code: its size cannot be checked, and it cannot be read.</summary>
    public static int? Bits(string name) => name switch
    {
        "F4" => 4,
        "F6_E2M3" or "F6_E3M2" => 6,
        "BOOL" or "U8" or "I8" or "F8_E4M3" or "F8_E5M2" or "F8_E8M0" => 8,
        "F16" or "BF16" or "I16" or "U16" => 16,
        "F32" or "I32" or "U32" => 32,
        "F64" or "I64" or "U64" or "C64" => 64,
        _ => null,
    };
}
