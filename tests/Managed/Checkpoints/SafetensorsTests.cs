using System.Buffers.Binary;
using System.Text;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class SafetensorsTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_is_written_is_read_back()
    {
        string path = _folder.At("all.safetensors");
        var writer = new SafetensorsWriter { Metadata = { ["op"] = "test", ["kind"] = "ä\"\n" } };
        writer.Add("bytes", [3], new byte[] { 1, 2, 255 });
        writer.Add("floats", [2, 2], new[] { 1.5f, -2, float.NaN, 4 });
        writer.Add("brains", [2], new[] { (BFloat16)1.5f, (BFloat16)(-3f) });
        writer.Add("halves", [2], new[] { (Half)0.25f, (Half)(-8f) });
        writer.Add("doubles", [1, 1, 1], new[] { 1e300 });
        writer.Add("longs", [2], new[] { -1L, 1L << 40 });
        writer.Add("ints", [], new[] { 7 });
        writer.Add("none", [0, 5], Array.Empty<float>());
        writer.Save(path);

        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Equal("ä\"\n", file.Metadata["kind"]);
        Assert.Equal(8, file.Tensors.Count);
        Assert.Equal([1.5f, -2, float.NaN, 4], file["floats"].ToFloat32());
        Assert.Equal([1.5f, -3], file["brains"].ToFloat32());
        Assert.Equal([0.25f, -8], file["halves"].ToFloat32());
        Assert.Equal([float.PositiveInfinity], file["doubles"].ToFloat32());
        Assert.Equal([1, 2, 255], file["bytes"].ToInt32());
        Assert.Equal([7], file["ints"].ToInt32());
        Assert.Equal(0, file["ints"].Shape.Length);
        Assert.Empty(file["none"].ToFloat32());
        Assert.Equal([0, 5], file["none"].Shape.ToArray());
        Assert.All(file.Tensors, tensor => Assert.True(tensor.IsAligned));
        Assert.Equal(ElementType.BFloat16, file["brains"].ElementType);
        Assert.Contains("1099511627776", Assert.Throws<CheckpointException>(() => file["longs"].ToInt32()).Message);
    }

    [Fact]
    public void An_empty_file_of_tensors_is_one()
    {
        using SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x", Bytes("{}   ", 0)));
        Assert.Empty(file.Tensors);
    }

    [Fact]
    public void Memory_is_gone_after_dispose()
    {
        SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x", Bytes("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8)));
        CheckpointTensor tensor = file["a"];
        Assert.Equal([0f, 0], tensor.ToFloat32());
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => tensor.ToFloat32());
        file.Dispose();
    }

    [Fact]
    public void A_missing_tensor_is_named_with_its_neighbours()
    {
        using SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x", Bytes("""{"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8)));
        var e = Assert.Throws<CheckpointException>(() => file["norm.weight"]);
        Assert.Equal("norm.weight", e.Tensor);
        Assert.Contains("'model.norm.weight'", e.Message);
    }

    [Fact]
    public void A_type_that_no_kernel_reads_is_listed_and_refused_when_asked_for()
    {
        using SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x", Bytes(
            """{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"NEW","shape":[5],"data_offsets":[2,4]}}""", 4)));
        Assert.Equal("F8_E4M3", file["a"].StoredType);
        Assert.False(file["a"].IsSupported);
        var e = Assert.Throws<CheckpointException>(() => file["a"].Pointer);
        Assert.Contains("'a'", e.Message);
        Assert.Contains("F8_E4M3", e.Message);
        Assert.Throws<CheckpointException>(() => file["b"].ToFloat32());
    }

    [Fact]
    public void Misplaced_tensors_are_read_all_the_same()
    {
        // One byte, then a float at an odd address.
        byte[] bytes = Bytes("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}""", 5);
        BinaryPrimitives.WriteSingleLittleEndian(bytes.AsSpan(bytes.Length - 4), 3.5f);
        using SafetensorsFile file = SafetensorsFile.Open(_folder.Write("x", bytes));
        Assert.NotEqual(file["a"].IsAligned ? 0 : 1, file["b"].IsAligned ? 0 : 1);
        Assert.Equal([3.5f], file["b"].ToFloat32());
    }

    [Theory]
    [InlineData("""[]""", 0, "expected an object")]
    [InlineData("""{"a":1}""", 0, "'a': expected an object")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}""", 8, "JSON")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x""", 8, "JSON")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}""", 8, "past the file's 8 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}}""", 8, "past the file's 8 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775808]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}""", 8, "after end")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}""", 8, "does not take the 8 bytes")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2147483647,2147483647,2147483647],"data_offsets":[0,8]}}""", 8, "does not take")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2147483648,2147483648,4],"data_offsets":[0,8]}}""", 8, "sizes up to")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}}""", 8, "at most 16")]
    [InlineData("""{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}""", 8, "expected an array")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}""", 8, "two numbers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}""", 8, "whole numbers")]
    [InlineData("""{"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}}""", 8, "expected a string")]
    [InlineData("""{"a":{"shape":[2],"data_offsets":[0,8]}}""", 8, "dtype is missing")]
    [InlineData("""{"a":{"dtype":"F32","data_offsets":[0,8]}}""", 8, "shape is missing")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2]}}""", 8, "data_offsets is missing")]
    [InlineData("""{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}""", 8, "listed twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}""", 16, "listed twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}""", 12, "inside another")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}""", 20, "leaves a gap")]
    [InlineData("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 9, "the file holds 9")]
    [InlineData("""{"__metadata__":{"a":1}}""", 0, "__metadata__.a: expected a string")]
    [InlineData("""{"__metadata__":{"a":"1","a":"2"}}""", 0, "listed twice")]
    public void A_lying_header_is_refused(string header, int data, string message)
    {
        var e = Assert.Throws<CheckpointException>(() => SafetensorsFile.Open(_folder.Write("lies.safetensors", Bytes(header, data))));
        Assert.Contains(message, e.Message);
        Assert.Contains("lies.safetensors", e.Message);
    }

    [Fact]
    public void Nesting_non_utf8_and_false_lengths_are_refused()
    {
        string deep = """{"a":{"x":""" + new string('[', 1_000_000) + new string(']', 1_000_000) + "}}";
        Refused(Bytes(deep, 0), "JSON");
        Refused(Bytes("{\"a\u00ff\":1}", 0, Encoding.Latin1), "JSON");
        Refused([], "truncated");
        Refused([1, 2, 3], "truncated");
        Refused([.. BitConverter.GetBytes(1UL << 63), 0, 0], "over the format's limit");
        Refused([.. BitConverter.GetBytes(ulong.MaxValue), 0, 0], "over the format's limit");
        Refused([.. BitConverter.GetBytes(3UL), 0, 0], "truncated");

        byte[] whole = Bytes("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}""", 8);
        for (int length = 0; length < whole.Length; length++) Refused(whole[..length], "");
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        var e = Assert.Throws<CheckpointException>(() => SafetensorsFile.Open(_folder.At("nowhere.safetensors")));
        Assert.Contains("nowhere.safetensors: file not found", e.Message);
        Assert.Throws<CheckpointException>(() => SafetensorsFile.Open(_folder.Path));
    }

    [Fact]
    public void A_file_that_cannot_be_written_leaves_nothing_behind()
    {
        var writer = new SafetensorsWriter();
        writer.Add("a", [1], new[] { 1f });
        var e = Assert.Throws<CheckpointException>(() => writer.Save(_folder.At("no/such/folder/x.safetensors")));
        Assert.Contains("cannot be written", e.Message);

        // The name of a folder: written beside it, then not movable there.
        Directory.CreateDirectory(_folder.At("taken"));
        Assert.Throws<CheckpointException>(() => writer.Save(_folder.At("taken")));
        Assert.Equal([_folder.At("taken")], Directory.GetFileSystemEntries(_folder.Path));
    }

    [Fact]
    public void Numbers_that_do_not_fit_their_shape_are_not_taken()
    {
        var writer = new SafetensorsWriter();
        Assert.Throws<ArgumentException>(() => writer.Add("a", [2, 2], new[] { 1f }));
        Assert.Throws<ArgumentOutOfRangeException>(() => writer.Add("a", [-1, -1], new[] { 1f }));
        Assert.Throws<ArgumentException>(() => writer.Add("__metadata__", [1], new[] { 1f }));
        writer.Add("a", [1], new[] { 1f });
        Assert.Throws<ArgumentException>(() => writer.Add("a", [1], new[] { 1f }));
    }

    private void Refused(byte[] file, string message)
    {
        var e = Assert.Throws<CheckpointException>(() => SafetensorsFile.Open(_folder.Write("x", file)));
        Assert.Contains(message, e.Message);
    }

    private static byte[] Bytes(string header, int data, Encoding? encoding = null)
    {
        byte[] json = (encoding ?? Encoding.UTF8).GetBytes(header);
        return [.. BitConverter.GetBytes((ulong)json.Length), .. json, .. new byte[data]];
    }
}
