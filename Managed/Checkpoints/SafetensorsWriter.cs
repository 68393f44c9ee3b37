using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;
using Treeline.Kernels;

namespace Treeline;

/// <summary>Collects tensors and writes them as one safetensors file: all of it, or nothing.</summary>
public sealed class SafetensorsWriter
{
    private readonly Dictionary<string, Entry> _entries = [];

    /// <summary>Strings for the header's <c>__metadata__</c>.</summary>
    public IDictionary<string, string> Metadata { get; } = new SortedDictionary<string, string>(StringComparer.Ordinal);

    /// <summary>Adds a tensor; its numbers are read when the file is saved.</summary>
    /// <typeparam name="T">float, <see cref="BFloat16"/>, <see cref="Half"/>, double, int, long or byte.</typeparam>
    /// <param name="name">A name that has not been added yet.</param>
    /// <param name="shape">Sizes, outermost first.</param>
    /// <param name="numbers">As many numbers as the shape has, row-major.</param>
    /// <exception cref="ArgumentException">The name is taken, or the shape and the numbers do not fit.</exception>
    public void Add<T>(string name, ReadOnlySpan<int> shape, ReadOnlyMemory<T> numbers) where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(name);
        ElementType type = ElementTypes.Of<T>();
        if (name == "__metadata__") throw new ArgumentException("name: __metadata__ is the format's own", nameof(name));
        foreach (int size in shape) ArgumentOutOfRangeException.ThrowIfNegative(size, nameof(shape));
        long bytes = (long)numbers.Length * type.Size();
        if (CheckpointTensor.Bytes(shape, type.Size()) != bytes)
            throw new ArgumentException($"numbers: expected as many as shape [{string.Join(", ", shape.ToArray())}] has, got {numbers.Length}", nameof(numbers));
        if (!_entries.TryAdd(name, new Entry(type, shape.ToArray(), bytes, stream => WriteNumbers(stream, numbers))))
            throw new ArgumentException($"name: '{name}' has been added already", nameof(name));
    }

    /// <summary>Adds a tensor; its numbers are read when the file is saved.</summary>
    /// <inheritdoc cref="Add{T}(string, ReadOnlySpan{int}, ReadOnlyMemory{T})"/>
    public void Add<T>(string name, ReadOnlySpan<int> shape, T[] numbers) where T : unmanaged => Add(name, shape, new ReadOnlyMemory<T>(numbers));

    /// <summary>Writes the file beside its place and moves it there when it is whole; an existing file is replaced then, not before.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="CheckpointException">It cannot be written; what was there before is untouched.</exception>
    public void Save(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string partial = $"{path}.{Guid.NewGuid():N}.partial";
        try
        {
            using (var stream = new FileStream(partial, FileMode.CreateNew, FileAccess.Write, FileShare.None))
            {
                // Wide elements first: every tensor is then aligned to its element's size.
                KeyValuePair<string, Entry>[] ordered = [.. _entries.OrderByDescending(e => e.Value.Type.Size()).ThenBy(e => e.Key, StringComparer.Ordinal)];
                WriteHeader(stream, ordered);
                foreach ((_, Entry entry) in ordered) entry.Write(stream);
                stream.Flush(flushToDisk: true);
            }

            File.Move(partial, path, overwrite: true);
        }
        catch (Exception e)
        {
            // A file that was never created is no error to delete; one that cannot be deleted must not hide the reason.
            try
            {
                File.Delete(partial);
            }
            catch (Exception inner) when (inner is IOException or UnauthorizedAccessException) { }

            if (e is IOException or UnauthorizedAccessException or NotSupportedException)
                throw new CheckpointException(path, null, $"cannot be written: {e.Message}", e);
            throw;
        }
    }

    private void WriteHeader(Stream stream, KeyValuePair<string, Entry>[] ordered)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            if (Metadata.Count > 0)
            {
                json.WriteStartObject("__metadata__");
                foreach ((string key, string value) in Metadata) json.WriteString(key, value);
                json.WriteEndObject();
            }

            long at = 0;
            foreach ((string name, Entry entry) in ordered)
            {
                json.WriteStartObject(name);
                json.WriteString("dtype", SafetensorsType.Name(entry.Type));
                json.WriteStartArray("shape");
                foreach (int size in entry.Shape) json.WriteNumberValue(size);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(at);
                json.WriteNumberValue(at += entry.Bytes);
                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndObject();
        }

        while (buffer.Length % 8 != 0) buffer.WriteByte((byte)' ');
        Span<byte> length = stackalloc byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(length, buffer.Length);
        stream.Write(length);
        buffer.WriteTo(stream);
    }

    // In pieces: an array may hold more bytes than a span can.
    private static void WriteNumbers<T>(Stream stream, ReadOnlyMemory<T> numbers) where T : unmanaged
    {
        const int Most = 1 << 20;
        for (int at = 0; at < numbers.Length; at += Most)
            stream.Write(MemoryMarshal.AsBytes(numbers.Span.Slice(at, Math.Min(Most, numbers.Length - at))));
    }

    private sealed record Entry(ElementType Type, int[] Shape, long Bytes, Action<Stream> Write);
}
