using System.IO.Compression;

namespace Treeline.Tests.Managed;

/// <summary>Writes files as <c>torch.save(model.state_dict())</c> does: a zip file with a pickle and one entry per storage.</summary>
internal sealed class TorchFile
{
    private readonly List<(string Key, byte[] Bytes)> _storages = [];
    private readonly List<(string Name, string Type, string Key, int Size, long Offset, long[] Shape, long[] Strides, bool IsParameter)> _tensors = [];

    public string Prefix { get; set; } = "archive/";

    public CompressionLevel Compression { get; set; } = CompressionLevel.NoCompression;

    /// <summary>Wraps the dictionary: <c>{"epoch": 3, "state_dict": …}</c>.</summary>
    public bool IsTraining { get; set; }

    public string? ByteOrder { get; set; } = "little";

    /// <summary>Entries beside the usual ones, the pickle's own name among them.</summary>
    public List<(string Name, byte[] Bytes)> Extra { get; } = [];

    public TorchFile Storage(string key, byte[] bytes)
    {
        _storages.Add((key, bytes));
        return this;
    }

    /// <summary>A view into a storage of elements of <paramref name="size"/> bytes.</summary>
    public TorchFile Tensor(string name, string type, string key, int size, long offset, long[] shape, long[] strides, bool isParameter = false)
    {
        _tensors.Add((name, type, key, size, offset, shape, strides, isParameter));
        return this;
    }

    /// <summary>A float32 tensor with a storage of its own.</summary>
    public TorchFile Floats(string name, long[] shape, params float[] numbers)
    {
        string key = $"{_storages.Count}";
        var strides = new long[shape.Length];
        long stride = 1;
        for (int i = shape.Length - 1; i >= 0; i--)
        {
            strides[i] = stride;
            stride *= shape[i];
        }

        return Storage(key, [.. numbers.SelectMany(BitConverter.GetBytes)]).Tensor(name, "FloatStorage", key, 4, 0, shape, strides);
    }

    public byte[] Pickle()
    {
        var pickle = new PickleWriter();
        if (IsTraining) pickle.Code('}').Code('(').Text("epoch").Number(3).Text("loss").Double(0.5).Text("state_dict");
        pickle.OrderedDictionary().Raw((byte)'q', 1).Code('(');
        foreach (var tensor in _tensors)
        {
            pickle.Text(tensor.Name);
            if (tensor.IsParameter) pickle.Global("torch._utils", "_rebuild_parameter");
            pickle.Tensor(tensor.Type, tensor.Key, _storages.Find(storage => storage.Key == tensor.Key).Bytes.Length / tensor.Size, tensor.Offset, tensor.Shape, tensor.Strides);
            if (tensor.IsParameter) pickle.Raw(0x89).OrderedDictionary().Raw(0x87).Code('R');
        }

        // The modules' versions, as attributes.
        pickle.Code('u').Code('}').Text("_metadata").OrderedDictionary().Code('s').Code('b');
        if (IsTraining) pickle.Code('u');
        return pickle.ToBytes();
    }

    public byte[] ToBytes() => ToBytes(Pickle());

    public byte[] ToBytes(byte[] pickle)
    {
        using var stream = new MemoryStream();
        using (var zip = new ZipArchive(stream, ZipArchiveMode.Create, leaveOpen: true))
        {
            Add("data.pkl", pickle);
            if (ByteOrder is not null) Add("byteorder", System.Text.Encoding.ASCII.GetBytes(ByteOrder));
            foreach ((string key, byte[] bytes) in _storages) Add($"data/{key}", bytes);
            foreach ((string name, byte[] bytes) in Extra) Add(name, bytes);
            Add("version", "3\n"u8.ToArray());

            void Add(string name, byte[] bytes)
            {
                using Stream entry = zip.CreateEntry(Prefix + name, Compression).Open();
                entry.Write(bytes);
            }
        }

        return stream.ToArray();
    }
}
