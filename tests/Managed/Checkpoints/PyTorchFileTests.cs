using System.Buffers.Binary;
using System.IO.Compression;
using System.Text;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class PyTorchFileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(CompressionLevel.NoCompression)]
    [InlineData(CompressionLevel.Optimal)]
    public void Every_element_type_is_read(CompressionLevel compression)
    {
        using Checkpoint checkpoint = Open(new TorchFile { Compression = compression }
            .Storage("0", Bytes([1.5f, -2f, 3f], BitConverter.GetBytes)).Tensor("floats", "FloatStorage", "0", 4, 0, [3], [1])
            .Storage("1", Bytes([1.5f, -3f], x => BitConverter.GetBytes((ushort)(BitConverter.SingleToUInt32Bits(x) >> 16)))).Tensor("brains", "BFloat16Storage", "1", 2, 0, [2], [1])
            .Storage("2", Bytes([(Half)0.25f, (Half)(-8f)], BitConverter.GetBytes)).Tensor("halves", "HalfStorage", "2", 2, 0, [2], [1])
            .Storage("3", Bytes([7L, -1L << 40], BitConverter.GetBytes)).Tensor("longs", "LongStorage", "3", 8, 0, [1, 2], [2, 1])
            .Storage("4", Bytes([5, -6], BitConverter.GetBytes)).Tensor("ints", "IntStorage", "4", 4, 0, [2], [1])
            .Storage("5", [1, 255]).Tensor("bytes", "ByteStorage", "5", 1, 0, [2], [1])
            .Storage("6", Bytes([1e300], BitConverter.GetBytes)).Tensor("number", "DoubleStorage", "6", 8, 0, [], [])
            .Storage("7", [1, 0]).Tensor("mask", "BoolStorage", "7", 1, 0, [2], [1])
            .Storage("8", []).Tensor("none", "FloatStorage", "8", 4, 0, [0, 3], [3, 1]));

        Assert.Equal(["floats", "brains", "halves", "longs", "ints", "bytes", "number", "mask", "none"], checkpoint.Tensors.Select(tensor => tensor.Name));
        Assert.Equal([1.5f, -2, 3], checkpoint["floats"].ToFloat32());
        Assert.Equal([1.5f, -3], checkpoint["brains"].ToFloat32());
        Assert.Equal(ElementType.BFloat16, checkpoint["brains"].ElementType);
        Assert.Equal([0.25f, -8], checkpoint["halves"].ToFloat32());
        Assert.Equal([7f, -(float)(1L << 40)], checkpoint["longs"].ToFloat32());
        Assert.Equal([1, 2], checkpoint["longs"].Shape.ToArray());
        Assert.Equal([5, -6], checkpoint["ints"].ToInt32());
        Assert.Equal([1, 255], checkpoint["bytes"].ToInt32());
        Assert.Equal([float.PositiveInfinity], checkpoint["number"].ToFloat32());
        Assert.Empty(checkpoint["none"].ToFloat32());
        Assert.Contains("'mask': elements of type BOOL are not supported", Assert.Throws<CheckpointException>(() => checkpoint["mask"].ToFloat32()).Message);
    }

    [Theory]
    [InlineData(CompressionLevel.NoCompression)]
    [InlineData(CompressionLevel.Fastest)]
    public void Views_of_one_storage_are_read_with_their_strides(CompressionLevel compression)
    {
        using Checkpoint checkpoint = Open(new TorchFile { Compression = compression }
            .Storage("0", Bytes([0f, 1, 2, 3, 4, 5, 6, 7], BitConverter.GetBytes))
            .Tensor("whole", "FloatStorage", "0", 4, 0, [2, 4], [4, 1])
            .Tensor("transposed", "FloatStorage", "0", 4, 0, [4, 2], [1, 4])
            .Tensor("part", "FloatStorage", "0", 4, 5, [3], [1])
            .Tensor("every second", "FloatStorage", "0", 4, 1, [2, 2], [4, 2])
            .Tensor("repeated", "FloatStorage", "0", 4, 7, [3], [0])
            .Tensor("thin", "FloatStorage", "0", 4, 2, [1, 3, 1], [99, 1, 77]));
        Assert.Equal([0f, 1, 2, 3, 4, 5, 6, 7], checkpoint["whole"].ToFloat32());
        Assert.Equal([0f, 4, 1, 5, 2, 6, 3, 7], checkpoint["transposed"].ToFloat32());
        Assert.Equal([4, 2], checkpoint["transposed"].Shape.ToArray());
        Assert.Equal([5f, 6, 7], checkpoint["part"].ToFloat32());
        Assert.Equal([1f, 3, 5, 7], checkpoint["every second"].ToFloat32());
        Assert.Equal([7f, 7, 7], checkpoint["repeated"].ToFloat32());
        Assert.Equal([2f, 3, 4], checkpoint["thin"].ToFloat32());
        // Shared, not copied: the same storage at another place.
        Assert.Equal(checkpoint["whole"].Pointer + 20, checkpoint["part"].Pointer);
    }

    [Fact]
    public void A_training_checkpoint_gives_its_model()
    {
        using Checkpoint checkpoint = Open(new TorchFile { IsTraining = true, Prefix = "model/" }.Floats("a", [2], 1, 2));
        Assert.Equal([1f, 2], checkpoint["a"].ToFloat32());
        Assert.Single(checkpoint.Tensors);
    }

    [Fact]
    public void Parameters_are_tensors()
    {
        using Checkpoint checkpoint = Open(new TorchFile().Storage("0", new byte[8]).Tensor("a", "FloatStorage", "0", 4, 0, [2], [1], isParameter: true));
        Assert.Equal([0f, 0], checkpoint["a"].ToFloat32());
    }

    [Fact]
    public void Shards_are_one_view()
    {
        _folder.Write("pytorch_model-1.bin", new TorchFile().Floats("a", [1], 1).ToBytes());
        _folder.Write("pytorch_model-2.bin", new TorchFile().Floats("b", [1], 2).Floats("c", [1], 3).ToBytes());
        _folder.Write("pytorch_model.bin.index.json", """{"weight_map":{"a":"pytorch_model-1.bin","b":"pytorch_model-2.bin"}}""");
        using Checkpoint checkpoint = Checkpoint.Open(_folder.Path);
        Assert.Equal(["a", "b"], checkpoint.Tensors.Select(tensor => tensor.Name));
        Assert.Equal([2f], checkpoint["b"].ToFloat32());
    }

    [Fact]
    public void Memory_is_gone_after_dispose()
    {
        Checkpoint checkpoint = Open(new TorchFile { Compression = CompressionLevel.Optimal }.Storage("0", new byte[16]).Tensor("a", "FloatStorage", "0", 4, 0, [2, 2], [1, 2]).Tensor("b", "FloatStorage", "0", 4, 0, [4], [1]));
        CheckpointTensor copied = checkpoint["a"], unpacked = checkpoint["b"];
        _ = copied.Pointer;
        checkpoint.Dispose();
        checkpoint.Dispose();
        Assert.Throws<ObjectDisposedException>(() => copied.Pointer);
        Assert.Throws<ObjectDisposedException>(() => unpacked.Pointer);
    }

    [Theory]
    [InlineData("os", "system", "'os.system' is refused")]
    [InlineData("builtins", "eval", "'builtins.eval' is refused")]
    [InlineData("torch", "load", "'torch.load' is refused")]
    [InlineData("torch._utils", "_rebuild_tensor", "'torch._utils._rebuild_tensor' is refused")]
    [InlineData("numpy.core.multiarray", "scalar", "'numpy.core.multiarray.scalar' is refused")]
    [InlineData("collections", "OrderedDict.fromkeys", "'collections.OrderedDict.fromkeys' is refused")]
    [InlineData("", "", "'.' is refused")]
    public void Any_other_name_is_refused(string module, string name, string message)
    {
        string command = $"echo run > {_folder.At("run")}";
        Refused(new PickleWriter().Global(module, name).Text(command).Raw(0x85).Code('R'), message);
        Refused(new PickleWriter().Text(module).Text(name).Raw(0x93), message);
        Refused(new PickleWriter().Code('(').Text(command).Code('i').Raw(Encoding.UTF8.GetBytes($"{module}\n{name}\n")), message);
        Assert.False(File.Exists(_folder.At("run")));
    }

    public static TheoryData<string, string> Malicious => new()
    {
        { "}(X\u0001\0\0\0a", "truncated" },
        { "N", "truncated" },
        { ".", "takes a value" },
        { "K\u0001", "truncated" },
        { "K\u0001.", "expected a dictionary" },
        { "0.", "takes a value" },
        { "(.", "takes a value" },
        { "}(K\u0001u.", "without a value" },
        { "}K\u0001K\u0002s0.", "takes a value" },
        { "K\u0001K\u0002K\u0003s.", "no dictionary" },
        { "K\u0001K\u0002a.", "no list" },
        { "K\u0001)R.", "no function" },
        { "h\u0007.", "recalls value 7" },
        { "t.", "back to a mark" },
        { "K\u0001\u0086.", "takes 2 values" },
        { "\u0081.", "objects of a class" },
        { "\u0092.", "objects of a class" },
        { "o.", "objects of a class" },
        { "}Nb.", "no dictionary" },
        { "N}b.", "no dictionary" },
        { "Q.", "takes a value" },
        { "NQ.", "expected storages" },
        { "P7\n.", "instruction 0x50" },
        { "\u0082\u0001.", "instruction 0x82" },
        { "B\u00ff\u00ff\u00ff\u00ff.", "instruction 0x42" },
        { "X\u00ff\u00ff\u00ff\u00ff.", "truncated" },
        { "\u008a\u0009aaaaaaaaa.", "a number of 9 bytes" },
        { "X\u0001\0\0\0\u00ff.", "no UTF-8" },
        { "\u0080\u0009.", "protocol 9" },
        { "ccollections", "does not end" },
        { "ccollections\nOrderedDict\nK\u0001R.", "expected a tuple of arguments" },
        { "ccollections\nOrderedDict\nK\u0001\u0085R.", "called with arguments that it does not take" },
    };

    [Theory, MemberData(nameof(Malicious))]
    public void A_damaged_pickle_is_refused(string instructions, string message) =>
        Refused(new TorchFile().ToBytes([0x80, 2, .. Encoding.Latin1.GetBytes(instructions)]), message);

    [Fact]
    public void A_tensor_outside_its_storage_is_refused()
    {
        RefusedTensor(offset: 0, [3], [1], "reaches past its storage of 2 elements");
        RefusedTensor(offset: 2, [1], [1], "reaches past its storage");
        RefusedTensor(offset: -1, [1], [1], "reaches past its storage");
        RefusedTensor(offset: 0, [2], [2], "reaches past its storage");
        RefusedTensor(offset: 0, [2], [long.MaxValue], "reaches past its storage");
        RefusedTensor(offset: long.MaxValue, [2], [1], "reaches past its storage");
        RefusedTensor(offset: 0, [2], [-1], "strides: expected numbers from 0 on, got -1");
        RefusedTensor(offset: 0, [-2], [1], "sizes: expected numbers from 0");
        RefusedTensor(offset: 0, [1L << 31], [0], "sizes: expected numbers from 0");
        RefusedTensor(offset: 0, [1, 1], [1], "2 sizes and 1 strides");
        RefusedTensor(offset: 0, [.. Enumerable.Repeat(1L, 17)], [.. Enumerable.Repeat(1L, 17)], "at most 16");
        RefusedTensor(offset: 0, [int.MaxValue, int.MaxValue, int.MaxValue], [0, 0, 0], "more bytes than 64 bits can count");
    }

    [Fact]
    public void A_view_that_would_fill_the_memory_is_refused_when_it_is_touched()
    {
        using Checkpoint checkpoint = Open(new TorchFile().Storage("0", new byte[8]).Tensor("huge", "FloatStorage", "0", 4, 0, [1_000_000_000], [0]));
        Assert.Contains("'huge': its view takes 4000000000 bytes", Assert.Throws<CheckpointException>(() => checkpoint["huge"].Pointer).Message);
    }

    [Fact]
    public void Storages_that_share_their_bytes_do_not_count_twice()
    {
        const int Count = 50, Side = 300;
        TorchFile large = new(), small = new();
        for (int i = 0; i < Count; i++)
        {
            large.Storage($"{i:00}", new byte[Side * Side]).Tensor($"t{i}", "ByteStorage", $"{i:00}", 1, 0, [Side, Side], [1, Side]);
            small.Storage($"{i:00}", new byte[i == 0 ? Side * Side : 1]);
        }

        // Every other entry says that it is the first.
        byte[] file = small.ToBytes(large.Pickle());
        int first = Directory(file, "archive/data/00");
        for (int i = 1; i < Count; i++)
        {
            int other = Directory(file, $"archive/data/{i:00}");
            file.AsSpan(first + 20, 8).CopyTo(file.AsSpan(other + 20));
            file.AsSpan(first + 42, 4).CopyTo(file.AsSpan(other + 42));
        }

        using Checkpoint checkpoint = Checkpoint.Open(_folder.Write("x.bin", file));
        var e = Assert.Throws<CheckpointException>(() => checkpoint.Tensors.Max(tensor => tensor.Pointer));
        Assert.Contains($"4 times the file's {file.Length} bytes of storage", e.Message);
    }

    [Fact]
    public void Storages_must_be_there_and_of_their_size()
    {
        byte[] pickle = new TorchFile().Storage("0", new byte[8]).Tensor("a", "FloatStorage", "0", 4, 0, [2], [1]).Pickle();
        Refused(new TorchFile().ToBytes(pickle), "'a': its storage 'data/0' is not in the file");
        Refused(new TorchFile().Storage("0", new byte[7]).ToBytes(pickle), "does not take the 7 bytes of 'data/0'");
        Refused(new TorchFile().Storage("0", new byte[4]).ToBytes(pickle), "does not take the 4 bytes");
        Refused(new TorchFile { ByteOrder = "big" }.Storage("0", new byte[8]).ToBytes(pickle), "byteorder: expected little");
    }

    [Fact]
    public void A_tensor_may_be_there_once()
    {
        Refused(new TorchFile().Floats("a", [1], 1).Floats("a", [1], 2).ToBytes(), "tensor 'a': listed twice");
        var names = new PickleWriter().OrderedDictionary().Code('(').Number(7).Tensor("FloatStorage", "0", 2, 0, [2], [1]).Code('u');
        Refused(new TorchFile().Storage("0", new byte[8]).ToBytes(names.ToBytes()), "a tensor's name: expected a string, got 7");
    }

    [Fact]
    public void What_is_no_zip_file_of_torch_is_refused()
    {
        byte[] whole = new TorchFile().Floats("a", [2], 1, 2).ToBytes();
        for (int length = 4; length < whole.Length; length++) Refused(whole[..length], length < 22 ? "" : "truncated");
        Refused(new TorchFile { Extra = { ("data.pkl", []) } }.Floats("a", [1], 1).ToBytes(), "listed twice");
        Refused(new TorchFile { Extra = { ("more/data.pkl", []) } }.Floats("a", [1], 1).ToBytes(), "expected one data.pkl inside, as torch.save writes it, got several");
        Refused(new TorchFile { Extra = { ("data/0", [1]) } }.Floats("a", [1], 1).ToBytes(), "'archive/data/0': listed twice");
        Refused([.. "PK\x05\x06"u8, .. new byte[18]], "got none");
        Refused([0x80, 2, 0x8a, 10, .. new byte[30]], "old form");
    }

    [Fact]
    public void A_zip_bomb_is_refused_before_it_is_unpacked()
    {
        // 40 MB of zeros in 40 KB.
        byte[] bomb = new TorchFile { Compression = CompressionLevel.Optimal }.Storage("0", new byte[40_000_000]).Tensor("a", "FloatStorage", "0", 4, 0, [10_000_000], [1]).ToBytes();
        using (Checkpoint checkpoint = Checkpoint.Open(_folder.Write("x.bin", bomb)))
            Assert.Contains("unpacked bytes are more than", Assert.Throws<CheckpointException>(() => checkpoint["a"].Pointer).Message);

        byte[] pickle = new byte[20_000_000];
        Refused(new TorchFile { Compression = CompressionLevel.Optimal }.ToBytes(pickle), "20000000 bytes, expected at most");

        // Few bytes that would become many values: 1 MB of them pack into one thousandth.
        Refused(new TorchFile { Compression = CompressionLevel.Optimal }.ToBytes([0x80, 2, .. Enumerable.Repeat((byte)']', 1_000_000)]), "1000002 bytes, expected at most");
    }

    [Fact]
    public void Sizes_that_a_packed_entry_cannot_have_are_refused()
    {
        byte[] file = new TorchFile { Compression = CompressionLevel.Optimal }.Floats("a", [64], new float[64]).ToBytes();
        int entry = Directory(file, "archive/data/0");
        long packed = BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(entry + 20));

        Refused(Changed(file, entry + 24, 0x7fffffff), "does not take the 2147483647 bytes");
        Refused(Changed(file, entry + 20, 0x7fffffff), "reach past the directory's start");
        Refused(Changed(file, entry + 42, 0x7fffffff), "truncated: 30 bytes at 2147483647");
        Refused(Changed(file, entry + 42, 7), "no local header at 7");
        Refused(Changed(file, entry + 24, 0xffffffff), "its 64-bit sizes are missing");
        Refused(Changed(file, entry + 10, 12), "packing method 12");
        Refused(Changed(file, entry + 10, 0), $"stored, but {packed} bytes are said to become 256");
        Refused(Changed(file, entry + 8, 1), "encrypted");

        byte[] lying = Changed(file, Directory(file, "archive/data.pkl") + 24, 5_000_000);
        Refused(lying, "packed bytes cannot become 5000000");
    }

    private static int Directory(byte[] file, string name)
    {
        byte[] wanted = Encoding.UTF8.GetBytes(name);
        return file.AsSpan().LastIndexOf(wanted) - 46;
    }

    private static byte[] Changed(byte[] file, int at, uint value)
    {
        byte[] changed = [.. file];
        if (at + 4 <= changed.Length && value > ushort.MaxValue) BinaryPrimitives.WriteUInt32LittleEndian(changed.AsSpan(at), value);
        else BinaryPrimitives.WriteUInt16LittleEndian(changed.AsSpan(at), (ushort)value);
        return changed;
    }

    private static byte[] Bytes<T>(T[] numbers, Func<T, byte[]> bytes) => [.. numbers.SelectMany(bytes)];

    private Checkpoint Open(TorchFile file) => Checkpoint.Open(_folder.Write("pytorch_model.bin", file.ToBytes()));

    private void RefusedTensor(long offset, long[] shape, long[] strides, string message) =>
        Refused(new TorchFile().Storage("0", new byte[8]).ToBytes(new PickleWriter().OrderedDictionary().Code('(').Text("a").Tensor("FloatStorage", "0", 2, offset, shape, strides).Code('u').ToBytes()), message);

    private void Refused(PickleWriter pickle, string message) => Refused(new TorchFile().ToBytes(pickle.ToBytes()), message);

    private void Refused(byte[] file, string message)
    {
        var e = Assert.Throws<CheckpointException>(() => Checkpoint.Open(_folder.Write("x.bin", file)));
        Assert.Contains(message, e.Message);
        Assert.Contains("x.bin", e.Message);
    }
}
