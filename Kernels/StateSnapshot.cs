using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Treeline.Kernels;

/// <summary>The byte format of a slot's state: docs/snapshot-format.md.</summary>
internal static class StateSnapshot
{
    private const uint Magic = 0x4E_53_4C_54;               // "TLSN"
    private const int Version = 1;
    private const int ChecksumBytes = 32;                   // SHA-256 of everything before it

    internal sealed record Content(int Length, List<(int Layer, StateField Field, byte[] Data)> Fields);

    public static void Write(AttentionState state, int slot, int length, Stream to)
    {
        using var body = new MemoryStream();
        using (var writer = new BinaryWriter(body, Encoding.UTF8, leaveOpen: true))
        {
            writer.Write(Magic);
            writer.Write(Version);
            writer.Write((int)state.StateType);
            writer.Write(length);
            writer.Write(state.Layers);
            for (int layer = 0; layer < state.Layers; layer++)
            {
                writer.Write(Fingerprint(state.Specs[layer]));
                writer.Write(state.Fields[layer].Count);
                foreach (StateField field in state.Fields[layer])
                {
                    var data = new byte[Size(state, layer, field, length) * state.StateType.Size()];
                    state.ReadFieldCore(layer, slot, field, data);
                    writer.Write(field.Name);
                    writer.Write((long)data.Length);
                    writer.Write(data);
                }
            }
        }

        ReadOnlySpan<byte> bytes = body.GetBuffer().AsSpan(0, (int)body.Length);
        Span<byte> header = stackalloc byte[sizeof(long)];
        BinaryPrimitives.WriteInt64LittleEndian(header, bytes.Length);
        to.Write(header);
        to.Write(bytes);
        to.Write(SHA256.HashData(bytes));
    }

    public static Content Read(AttentionState state, Stream from)
    {
        byte[] bytes = ReadChecked(from);
        try
        {
            return ReadBody(state, bytes);
        }
        catch (Exception e) when (e is IOException or DecoderFallbackException or FormatException or ArgumentException)
        {
            throw new SnapshotException($"snapshot: ends early or is malformed ({e.Message})", e);
        }
    }

    private static byte[] ReadChecked(Stream from)
    {
        try
        {
            Span<byte> header = stackalloc byte[sizeof(long)];
            from.ReadExactly(header);
            long size = BinaryPrimitives.ReadInt64LittleEndian(header);
            if (size is < 20 or > int.MaxValue) throw new SnapshotException($"snapshot: a body of {size} bytes cannot be");
            byte[] bytes = ReadBytes(from, (int)size);
            byte[] checksum = ReadBytes(from, ChecksumBytes);
            if (!CryptographicOperations.FixedTimeEquals(SHA256.HashData(bytes), checksum)) throw new SnapshotException("snapshot: checksum does not match, the bytes are damaged");
            return bytes;
        }
        catch (EndOfStreamException e)
        {
            throw new SnapshotException($"snapshot: ends early ({e.Message})", e);
        }
    }

    private static Content ReadBody(AttentionState state, byte[] bytes)
    {
        using var reader = new BinaryReader(new MemoryStream(bytes), Encoding.UTF8);
        if (reader.ReadUInt32() != Magic) throw new SnapshotException("snapshot: not a state snapshot");
        if (reader.ReadInt32() is var version && version != Version) throw new SnapshotException($"snapshot: expected version {Version}, got {version}");
        var type = (ElementType)reader.ReadInt32();
        if (type is not (ElementType.Float32 or ElementType.Float64)) throw new SnapshotException($"snapshot: element type {type} is not a state's");
        int length = reader.ReadInt32();
        if (length < 0) throw new SnapshotException($"snapshot: length {length}");
        if (reader.ReadInt32() is var layers && layers != state.Layers) throw new SnapshotException($"snapshot: expected {state.Layers} layers, got {layers}");

        var fields = new List<(int, StateField, byte[])>();
        for (int layer = 0; layer < state.Layers; layer++)
        {
            string wanted = Fingerprint(state.Specs[layer]), got = reader.ReadString();
            if (wanted != got) throw new SnapshotException($"snapshot: layer {layer} is of another spec: expected {wanted}, got {got}");
            if (reader.ReadInt32() != state.Fields[layer].Count) throw new SnapshotException($"snapshot: layer {layer} has another number of fields");
            foreach (StateField field in state.Fields[layer])
            {
                string name = reader.ReadString();
                long count = Size(state, layer, field, length), have = reader.ReadInt64();
                if (name != field.Name || have != count * type.Size())
                    throw new SnapshotException($"snapshot: layer {layer}: expected field {field.Name} of {count * type.Size()} bytes, got {name} of {have}");
                if (have > bytes.Length - reader.BaseStream.Position) throw new SnapshotException($"snapshot: layer {layer}: field {name} ends early");
                byte[] data = reader.ReadBytes((int)have);
                fields.Add((layer, field, Convert(data, type, state.StateType)));
            }
        }

        return new Content(length, fields);
    }

    // Reads what is there instead of trusting the size: a lying header must not ask for memory that the stream does not back.
    private static byte[] ReadBytes(Stream from, int count)
    {
        using var bytes = new MemoryStream();
        var chunk = new byte[Math.Min(count, 1 << 16)];
        while (bytes.Length < count)
        {
            int got = from.Read(chunk, 0, (int)Math.Min(chunk.Length, count - bytes.Length));
            if (got == 0) throw new EndOfStreamException($"expected {count} bytes, got {bytes.Length}");
            bytes.Write(chunk, 0, got);
        }

        return bytes.ToArray();
    }

    private static long Size(AttentionState state, int layer, StateField field, int length)
    {
        long size = 1;
        foreach (int dimension in field.ShapeAt(length, state.Specs[layer].BlockLength)) size *= dimension;
        return size;
    }

    private static byte[] Convert(byte[] data, ElementType from, ElementType to)
    {
        if (from == to) return data;
        if (to == ElementType.Float64) return MemoryMarshal.AsBytes<double>(Array.ConvertAll(MemoryMarshal.Cast<byte, float>(data).ToArray(), x => (double)x)).ToArray();
        return MemoryMarshal.AsBytes<float>(Array.ConvertAll(MemoryMarshal.Cast<byte, double>(data).ToArray(), x => (float)x)).ToArray();
    }

    /// <summary>Every property that decides what the numbers mean: the spec's own text lists them.</summary>
    private static string Fingerprint(AttentionSpec spec) => spec.ToString();
}
