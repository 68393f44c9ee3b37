using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;

namespace Treeline;

/// <summary>One file inside a zip file.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Method">0: stored, 8: deflated; nothing else can be read.</param>
/// <param name="Packed">Bytes in the zip file.</param>
/// <param name="Size">Bytes once unpacked, if the directory tells the truth.</param>
/// <param name="Header">Where its local header lies.</param>
/// <param name="IsEncrypted">True where it needs a password.</param>
internal sealed record ZipEntry(string Name, int Method, long Packed, long Size, long Header, bool IsEncrypted);

/// <summary>The directory of a mapped zip file: says where stored entries lie, so that they can be used in place, and unpacks deflated ones within limits.</summary>
/// <remarks>The framework's ZipArchive says neither. Checksums are not verified: that would read a whole checkpoint to open it.</remarks>
internal sealed class ZipDirectory
{
    private const int EndLength = 22, EntryLength = 46, LocalLength = 30, Zip64LocatorLength = 20, Zip64EndLength = 56;

    // No deflate stream unpacks to more than 1,032 times its length.
    private const long MostDeflate = 1032;

    // All unpacked entries of a file together: real weights hardly shrink at all.
    private const long UnpackedFree = 16 << 20, UnpackedRatio = 100;

    private readonly string _file;
    private readonly CheckpointMemory _memory;
    private readonly Dictionary<string, ZipEntry> _entries = [];
    private readonly long _directory;
    private long _unpacked;

    /// <exception cref="CheckpointException">It is truncated, or says things that cannot be.</exception>
    public ZipDirectory(string file, CheckpointMemory memory)
    {
        (_file, _memory) = (file, memory);
        (long at, long length, long count) = FindDirectory();
        if (at < 0 || length < 0 || at > memory.Length - length) throw Bad($"the directory ({length} bytes at {at}) lies outside the file");
        if (count < 0 || count > length / EntryLength) throw Bad($"the directory has {length} bytes, too few for {count} entries");
        _directory = at;
        long end = at + length;
        for (long i = 0; i < count; i++) at = ReadEntry(at, end);
        if (at != end) throw Bad($"the directory's {count} entries end at {at}, expected {end}");
    }

    public IReadOnlyDictionary<string, ZipEntry> Entries => _entries;

    /// <summary>The most bytes that all packed entries together may become.</summary>
    public long MostUnpacked => UnpackedFree + UnpackedRatio * _memory.Length;

    /// <summary>Where an entry's packed bytes lie.</summary>
    public long DataOffset(ZipEntry entry)
    {
        ReadOnlySpan<byte> local = Bytes(entry.Header, LocalLength);
        if (BinaryPrimitives.ReadUInt32LittleEndian(local) != 0x04034b50) throw Bad($"entry '{entry.Name}': no local header at {entry.Header}");
        long data = entry.Header + LocalLength + BinaryPrimitives.ReadUInt16LittleEndian(local[26..]) + BinaryPrimitives.ReadUInt16LittleEndian(local[28..]);
        if (data > _directory - entry.Packed) throw Bad($"entry '{entry.Name}': its {entry.Packed} bytes at {data} reach past the directory's start {_directory}");
        return data;
    }

    /// <summary>Refuses an entry that cannot be read, before anything is allocated for it.</summary>
    public void Check(ZipEntry entry)
    {
        if (entry.IsEncrypted) throw Bad($"entry '{entry.Name}': encrypted");
        if (entry.Method is not (0 or 8)) throw Bad($"entry '{entry.Name}': packing method {entry.Method} is not supported");
        if (entry.Method == 0 && entry.Packed != entry.Size) throw Bad($"entry '{entry.Name}': stored, but {entry.Packed} bytes are said to become {entry.Size}");
        if (entry.Method == 8 && entry.Size / MostDeflate > entry.Packed) throw Bad($"entry '{entry.Name}': {entry.Packed} packed bytes cannot become {entry.Size}");
        DataOffset(entry);
    }

    /// <summary>Unpacks a deflated entry that has been checked.</summary>
    public unsafe NativeBlock Unpack(ZipEntry entry)
    {
        if (entry.Size > MostUnpacked - _unpacked) throw Bad($"entry '{entry.Name}': {_unpacked} + {entry.Size} unpacked bytes are more than {MostUnpacked}, the most that a file of {_memory.Length} may hold");
        _unpacked += entry.Size;
        var block = new NativeBlock(entry.Size);
        try
        {
            using var packed = new UnmanagedMemoryStream((byte*)_memory.Address(DataOffset(entry)), entry.Packed);
            using var inflate = new DeflateStream(packed, CompressionMode.Decompress);
            for (long at = 0; at < entry.Size;)
            {
                int read = inflate.Read(block.Writable(at, (int)Math.Min(entry.Size - at, 1 << 20)));
                if (read == 0) throw Bad($"entry '{entry.Name}': unpacks to {at} bytes, expected {entry.Size}");
                at += read;
            }

            if (inflate.ReadByte() >= 0) throw Bad($"entry '{entry.Name}': unpacks to more than the {entry.Size} bytes that the directory says");
            return block;
        }
        catch (InvalidDataException e)
        {
            block.Dispose();
            throw new CheckpointException(_file, null, $"entry '{entry.Name}': {e.Message}", e);
        }
        catch
        {
            block.Dispose();
            throw;
        }
    }

    // From the end: the record that every zip file ends with, and its 64-bit form where the plain one overflows.
    private (long At, long Length, long Count) FindDirectory()
    {
        for (long end = _memory.Length - EndLength; end >= Math.Max(0, _memory.Length - EndLength - ushort.MaxValue); end--)
        {
            ReadOnlySpan<byte> record = Bytes(end, EndLength);
            if (BinaryPrimitives.ReadUInt32LittleEndian(record) != 0x06054b50) continue;
            if (end + EndLength + BinaryPrimitives.ReadUInt16LittleEndian(record[20..]) != _memory.Length) continue;
            uint at = BinaryPrimitives.ReadUInt32LittleEndian(record[16..]), length = BinaryPrimitives.ReadUInt32LittleEndian(record[12..]);
            ushort count = BinaryPrimitives.ReadUInt16LittleEndian(record[10..]);
            return at == uint.MaxValue || length == uint.MaxValue || count == ushort.MaxValue ? FindDirectory64(end) : (at, length, count);
        }

        throw Bad("truncated: no zip directory at its end");
    }

    private (long At, long Length, long Count) FindDirectory64(long end)
    {
        ReadOnlySpan<byte> locator = Bytes(end - Zip64LocatorLength, Zip64LocatorLength);
        if (BinaryPrimitives.ReadUInt32LittleEndian(locator) != 0x07064b50) throw Bad("no 64-bit zip directory where one is announced");
        ReadOnlySpan<byte> record = Bytes(BinaryPrimitives.ReadInt64LittleEndian(locator[8..]), Zip64EndLength);
        if (BinaryPrimitives.ReadUInt32LittleEndian(record) != 0x06064b50) throw Bad("no 64-bit zip directory where one is announced");
        return (BinaryPrimitives.ReadInt64LittleEndian(record[48..]), BinaryPrimitives.ReadInt64LittleEndian(record[40..]), BinaryPrimitives.ReadInt64LittleEndian(record[32..]));
    }

    private long ReadEntry(long at, long end)
    {
        if (at > end - EntryLength) throw Bad("the directory is truncated");
        ReadOnlySpan<byte> record = Bytes(at, EntryLength);
        if (BinaryPrimitives.ReadUInt32LittleEndian(record) != 0x02014b50) throw Bad($"no directory entry at {at}");
        int nameLength = BinaryPrimitives.ReadUInt16LittleEndian(record[28..]), extraLength = BinaryPrimitives.ReadUInt16LittleEndian(record[30..]);
        long next = at + EntryLength + nameLength + extraLength + BinaryPrimitives.ReadUInt16LittleEndian(record[32..]);
        if (next > end) throw Bad("the directory is truncated");

        string name = Encoding.UTF8.GetString(Bytes(at + EntryLength, nameLength));
        ReadOnlySpan<byte> extra = Extra64(Bytes(at + EntryLength + nameLength, extraLength));
        // In this order, each only where the 32-bit field is full.
        long size = Wide(BinaryPrimitives.ReadUInt32LittleEndian(record[24..]), ref extra, name);
        long packed = Wide(BinaryPrimitives.ReadUInt32LittleEndian(record[20..]), ref extra, name);
        long header = Wide(BinaryPrimitives.ReadUInt32LittleEndian(record[42..]), ref extra, name);
        var entry = new ZipEntry(name, BinaryPrimitives.ReadUInt16LittleEndian(record[10..]), packed, size, header, (record[8] & 1) != 0);
        if (!_entries.TryAdd(name, entry)) throw Bad($"entry '{name}': listed twice");
        return next;
    }

    private static ReadOnlySpan<byte> Extra64(ReadOnlySpan<byte> extra)
    {
        while (extra.Length >= 4)
        {
            int id = BinaryPrimitives.ReadUInt16LittleEndian(extra), length = BinaryPrimitives.ReadUInt16LittleEndian(extra[2..]);
            extra = extra[4..];
            if (length > extra.Length) break;
            if (id == 1) return extra[..length];
            extra = extra[length..];
        }

        return [];
    }

    private long Wide(uint narrow, ref ReadOnlySpan<byte> extra, string name)
    {
        if (narrow != uint.MaxValue) return narrow;
        if (extra.Length < 8) throw Bad($"entry '{name}': its 64-bit sizes are missing");
        long wide = BinaryPrimitives.ReadInt64LittleEndian(extra);
        extra = extra[8..];
        return wide >= 0 ? wide : throw Bad($"entry '{name}': a size or place over {long.MaxValue}");
    }

    private ReadOnlySpan<byte> Bytes(long at, int length) => at >= 0 && at <= _memory.Length - length
        ? _memory.Span(at, length)
        : throw Bad($"truncated: {length} bytes at {at} are wanted, the file has {_memory.Length}");

    private CheckpointException Bad(string message) => new(_file, null, message);
}
