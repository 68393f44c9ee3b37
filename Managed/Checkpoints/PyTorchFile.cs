using System.Runtime.CompilerServices;

namespace Treeline;

/// <summary>A file of <c>torch.save</c> (zip form), mapped: a pickle that describes the tensors and one entry per storage, used in place where it is stored plainly.</summary>
internal sealed class PyTorchFile : ITensorFile
{
    // Tensors that are not contiguous are copied when first touched; views of one storage could otherwise multiply without end.
    private const long CopiesFree = 1 << 20, CopiesPerStorageByte = 4;

    // Descriptions of a thousand layers are alike and pack well: ten to twenty times.
    private const long PickleFree = 64 << 10, PickleRatio = 100;

    private readonly CheckpointMemory _memory;
    private readonly ZipDirectory _zip;
    private readonly string _prefix;
    private readonly Dictionary<string, NativeBlock> _unpacked = [];
    private readonly List<NativeBlock> _copies = [];
    private readonly Lock _lock = new();
    private readonly HashSet<string> _storages = [];
    private long _storedBytes, _packedBytes;               // of the storages that tensors use: stored plainly, packed
    private long _copied;
    private bool _disposed;

    public PyTorchFile(string path, CheckpointMemory memory)
    {
        (Path, _memory) = (path, memory);
        if (IsOld(Start(memory)))
            throw new CheckpointException(path, null, "is of PyTorch's old form (before 1.6), which is not supported: load it in PyTorch and save it again, or as safetensors");
        _zip = new ZipDirectory(path, memory);
        string[] pickles = [.. _zip.Entries.Keys.Where(name => name == "data.pkl" || name.EndsWith("/data.pkl", StringComparison.Ordinal)).Take(2)];
        if (pickles.Length != 1) throw new CheckpointException(path, null, $"expected one data.pkl inside, as torch.save writes it, got {(pickles.Length == 0 ? "none" : "several")}");
        _prefix = pickles[0][..^"data.pkl".Length];
        try
        {
            if (_zip.Entries.TryGetValue(_prefix + "byteorder", out ZipEntry? order) && !Small(order, 16).SequenceEqual("little"u8))
                throw new CheckpointException(path, null, "byteorder: expected little");
            object? value = PickleReader.Read(path, Small(_zip.Entries[pickles[0]], PickleReader.MaxLength));
            Tensors = Collect(StateOf(value));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Path { get; }

    public IReadOnlyList<CheckpointTensor> Tensors { get; }

    public IReadOnlyDictionary<string, string> Metadata { get; } = new Dictionary<string, string>();

    /// <summary>Whether a file's first bytes are those of a zip file or of PyTorch's older form (and not a safetensors header's length).</summary>
    public static bool IsOne(CheckpointMemory memory)
    {
        ReadOnlySpan<byte> start = Start(memory);
        return start is [(byte)'P', (byte)'K', 3 or 5, 4 or 6, ..] and not [_, _, _, _, _, _, _, _, (byte)'{'] || IsOld(start);
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            foreach (NativeBlock block in _unpacked.Values) block.Dispose();
            foreach (NativeBlock block in _copies) block.Dispose();
            _unpacked.Clear();
            _copies.Clear();
            _memory.Dispose();
        }
    }

    private static ReadOnlySpan<byte> Start(CheckpointMemory memory) => memory.Span(0, (int)Math.Min(9, memory.Length));

    // Protocol 2, then its magic number of ten bytes.
    private static bool IsOld(ReadOnlySpan<byte> start) => start is [0x80, 2, 0x8a, 10, ..];

    private ReadOnlySpan<byte> Small(ZipEntry entry, int most)
    {
        _zip.Check(entry);
        // One byte of a pickle makes a value of about sixty: what is packed must not become much more than it is.
        if (entry.Method != 0) most = (int)Math.Min(most, PickleFree + PickleRatio * entry.Packed);
        if (entry.Size > most) throw new CheckpointException(Path, null, $"entry '{entry.Name}': {entry.Size} bytes, expected at most {most}");
        if (entry.Method == 0) return _memory.Span(_zip.DataOffset(entry), (int)entry.Size);
        return Unpacked(entry).Span(0, (int)entry.Size);
    }

    // A dictionary of tensors, or a training checkpoint that holds one.
    private PickleDictionary StateOf(object? value)
    {
        if (value is not PickleDictionary dictionary) throw new CheckpointException(Path, null, "expected a dictionary of tensors");
        if (!dictionary.Items.Exists(item => item.Value is PickleTensor) && (dictionary["state_dict"] ?? dictionary["model"]) is PickleDictionary inner) return inner;
        return dictionary;
    }

    // Values that are no tensors (a step count, a version) are no part of the model.
    private List<CheckpointTensor> Collect(PickleDictionary state)
    {
        var tensors = new List<CheckpointTensor>();
        var names = new HashSet<string>();
        foreach ((object? key, object? value) in state.Items)
        {
            if (value is not PickleTensor tensor) continue;
            if (key is not string name) throw new CheckpointException(Path, null, $"a tensor's name: expected a string, got {key ?? "None"}");
            if (!names.Add(name)) throw new CheckpointException(Path, name, "listed twice");
            tensors.Add(Describe(name, tensor));
        }

        return tensors;
    }

    private CheckpointTensor Describe(string name, PickleTensor tensor)
    {
        (PickleStorage storage, StoredElement element) = (tensor.Storage, tensor.Storage.Element);
        if (!_zip.Entries.TryGetValue($"{_prefix}data/{storage.Key}", out ZipEntry? entry))
            throw new CheckpointException(Path, name, $"its storage 'data/{storage.Key}' is not in the file");
        if ((Int128)storage.Count * element.Size != entry.Size)
            throw new CheckpointException(Path, name, $"its storage of {storage.Count} {element.Name} does not take the {entry.Size} bytes of 'data/{storage.Key}'");
        _zip.Check(entry);
        if (_storages.Add(storage.Key))
        {
            if (entry.Method == 0) _storedBytes += entry.Size;
            else _packedBytes += entry.Size;
        }

        if (CheckpointTensor.Bytes(tensor.Shape, element.Size) is not long bytes)
            throw new CheckpointException(Path, name, $"shape [{string.Join(", ", tensor.Shape)}] has more bytes than 64 bits can count");

        NativeBlock? copy = null;
        nint Address()
        {
            lock (_lock)
            {
                ObjectDisposedException.ThrowIf(_disposed, typeof(Checkpoint));
                if (IsContiguous(tensor)) return StorageAddress(entry) + (nint)(bytes == 0 ? 0 : tensor.Offset * element.Size);
                return (copy ??= Copy(name, tensor, entry, bytes)).Address(0);
            }
        }

        return new CheckpointTensor(Path, name, element.Name, element.Type, tensor.Shape, bytes, Address);
    }

    private nint StorageAddress(ZipEntry entry) => entry.Method == 0 ? _memory.Address(_zip.DataOffset(entry)) : Unpacked(entry).Address(0);

    private NativeBlock Unpacked(ZipEntry entry)
    {
        if (!_unpacked.TryGetValue(entry.Name, out NativeBlock? block)) _unpacked.Add(entry.Name, block = _zip.Unpack(entry));
        return block;
    }

    private static bool IsContiguous(PickleTensor tensor)
    {
        if (tensor.Shape.Contains(0)) return true;
        Int128 dense = 1;
        for (int i = tensor.Shape.Length - 1; i >= 0; i--)
        {
            if (tensor.Shape[i] != 1 && tensor.Strides[i] != dense) return false;
            dense *= tensor.Shape[i];
        }

        return true;
    }

    private NativeBlock Copy(string name, PickleTensor tensor, ZipEntry entry, long bytes)
    {
        // Entries that share their bytes would count them many times.
        long real = Math.Min(_storedBytes, _memory.Length) + Math.Min(_packedBytes, _zip.MostUnpacked);
        if (bytes > CopiesFree + (Int128)CopiesPerStorageByte * real - _copied)
            throw new CheckpointException(Path, name, $"its view takes {bytes} bytes as a tensor of its own; all such views together may take {CopiesPerStorageByte} times the file's {real} bytes of storage");
        nint storage = StorageAddress(entry);
        _copied += bytes;
        var block = new NativeBlock(bytes);
        _copies.Add(block);
        switch (tensor.Storage.Element.Size)
        {
            case 1: Gather<byte>(tensor, storage, block.Address(0)); break;
            case 2: Gather<ushort>(tensor, storage, block.Address(0)); break;
            case 4: Gather<uint>(tensor, storage, block.Address(0)); break;
            default: Gather<ulong>(tensor, storage, block.Address(0)); break;
        }

        return block;
    }

    // Counts through the shape like an odometer, the last dimension fastest. Reads may be misaligned: zip entries lie anywhere.
    private static unsafe void Gather<T>(PickleTensor tensor, nint storage, nint to) where T : unmanaged
    {
        int[] shape = tensor.Shape;
        Span<int> index = stackalloc int[SafetensorsHeader.MaxRank];
        long at = tensor.Offset;
        for (long i = 0; ; i++)
        {
            ((T*)to)[i] = Unsafe.ReadUnaligned<T>((byte*)storage + at * sizeof(T));
            int d = shape.Length - 1;
            while (d >= 0 && ++index[d] == shape[d])
            {
                at -= (shape[d] - 1) * tensor.Strides[d];
                index[d--] = 0;
            }

            if (d < 0) return;
            at += tensor.Strides[d];
        }
    }
}
