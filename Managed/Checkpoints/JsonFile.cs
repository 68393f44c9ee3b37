using System.Text.Json;

namespace Treeline;

/// <summary>Reads the small JSON files beside a checkpoint; what is wrong with them names file and key.</summary>
internal static class JsonFile
{
    // The largest that is met: a tokenizer of 260,000 tokens, 34 MB.
    private const long MaxLength = 256L << 20;

    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 64, AllowDuplicateProperties = false };

    /// <exception cref="CheckpointException">It is missing, cannot be read, or holds no JSON object.</exception>
    public static JsonFields Read(string path)
    {
        try
        {
            if (new FileInfo(path) is { Exists: true, Length: > MaxLength } large)
                throw new CheckpointException(path, null, $"{large.Length} bytes are more than any such file has (at most {MaxLength})");
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path), Strict);
            return new JsonFields(path, "", document.RootElement.Clone());
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new CheckpointException(path, null, "file not found", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidOperationException)
        {
            throw new CheckpointException(path, null, e.Message, e);
        }
        catch (JsonException e)
        {
            throw new CheckpointException(path, null, $"no valid JSON: {e.Message}", e);
        }
    }
}

/// <summary>The keys of a JSON object, typed; a key whose value is null counts as absent, as in Python's configurations.</summary>
internal readonly struct JsonFields
{
    private readonly string _file;
    private readonly string _path;

    public JsonFields(string file, string path, JsonElement value)
    {
        (_file, _path, Value) = (file, path, value);
        if (value.ValueKind != JsonValueKind.Object) throw new CheckpointException(file, null, $"{(path.Length == 0 ? "" : path.TrimEnd('.') + ": ")}expected an object, got {Shown(value)}");
    }

    public JsonElement Value { get; }

    public bool Has(string key) => Find(key) is not null;

    public int Int(string key) => OptionalInt(key) ?? throw Missing(key);

    public int? OptionalInt(string key) =>
        Find(key) is not JsonElement value ? null
        : value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) ? number
        : throw Wrong(key, "a whole number of 32 bits", value);

    /// <summary>A size or a count: a whole number from 1 on.</summary>
    public int Positive(string key) => OptionalPositive(key) ?? throw Missing(key);

    public int? OptionalPositive(string key) =>
        OptionalInt(key) is not int number ? null : number > 0 ? number : throw Bad(key, $"expected a number from 1 on, got {number}");

    public float Float(string key) => OptionalFloat(key) ?? throw Missing(key);

    public float? OptionalFloat(string key) =>
        Find(key) is not JsonElement value ? null
        : value.ValueKind == JsonValueKind.Number && value.TryGetSingle(out float number) && float.IsFinite(number) ? number
        : throw Wrong(key, "a number", value);

    public bool Bool(string key) => OptionalBool(key) ?? throw Missing(key);

    public bool? OptionalBool(string key) => Find(key) is not JsonElement value ? null : value.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Wrong(key, "true or false", value),
    };

    public string String(string key) => OptionalString(key) ?? throw Missing(key);

    public string? OptionalString(string key) =>
        Find(key) is not JsonElement value ? null
        : value.ValueKind == JsonValueKind.String ? Text(value)
        : throw Wrong(key, "a string", value);

    public JsonFields Object(string key) => OptionalObject(key) ?? throw Missing(key);

    public JsonFields? OptionalObject(string key) => Find(key) is not JsonElement value ? null : new JsonFields(_file, $"{_path}{key}.", value);

    /// <summary>An object inside this one, for its keys' sake: an element of an array, or the value of a key that is a name.</summary>
    public JsonFields Nested(string key, JsonElement value) => new(_file, $"{_path}{key}.", value);

    /// <summary>The elements of an array; none where the key is absent.</summary>
    public IReadOnlyList<JsonElement> Elements(string key) =>
        Find(key) is not JsonElement value ? []
        : value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray()]
        : throw Wrong(key, "an array", value);

    /// <summary>One whole number or an array of them; none where the key is absent.</summary>
    public IReadOnlyList<int> Ints(string key)
    {
        if (Find(key) is not JsonElement value) return [];
        if (value.ValueKind != JsonValueKind.Array) return [Int(key)];
        var numbers = new List<int>();
        foreach (JsonElement element in value.EnumerateArray())
            numbers.Add(element.ValueKind == JsonValueKind.Number && element.TryGetInt32(out int number) ? number : throw Wrong(key, "whole numbers of 32 bits", element));
        return numbers;
    }

    /// <summary>Refuses keys that are not listed: where an unknown one would change what is computed.</summary>
    public void AllowOnly(params ReadOnlySpan<string> keys)
    {
        foreach (JsonProperty property in Value.EnumerateObject())
            if (!keys.Contains(Text(property))) throw Bad(Text(property), $"not a known key here; known are {string.Join(", ", keys.ToArray())}");
    }

    public CheckpointException Bad(string key, string message) => new(_file, null, $"{_path}{key}: {message}");

    /// <summary>A sound key whose value asks for something that this version does not compute.</summary>
    public CheckpointException Unsupported(string key, string message) => new(_file, null, $"{_path}{key}: {message}") { IsUnsupported = true };

    public CheckpointException Missing(string key) => Bad(key, "missing");

    /// <summary>A key's name; strings that are no UTF-8 are found out here.</summary>
    public string Text(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException e)
        {
            throw new CheckpointException(_file, null, $"{_path}: a key is no UTF-8", e);
        }
    }

    /// <summary>A string's text; strings that are no UTF-8 are found out here.</summary>
    public string Text(JsonElement value)
    {
        try
        {
            return value.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new CheckpointException(_file, null, $"{_path}: a string is no UTF-8", e);
        }
    }

    private JsonElement? Find(string key) => Value.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    private CheckpointException Wrong(string key, string wanted, JsonElement got) => Bad(key, $"expected {wanted}, got {Shown(got)}");

    private static string Shown(JsonElement value)
    {
        string text = value.GetRawText();
        return text.Length <= 100 ? text : text[..100] + "…";
    }
}
