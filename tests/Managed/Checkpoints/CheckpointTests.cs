using Xunit;

namespace Treeline.Tests.Managed;

public sealed class CheckpointTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_folder_with_one_file_is_opened()
    {
        Save("model.safetensors", "a", 1);
        using Checkpoint checkpoint = Checkpoint.Open(_folder.Path);
        Assert.Equal([1f], checkpoint["a"].ToFloat32());
        Assert.Equal(_folder.At("model.safetensors"), checkpoint.Path);
        Assert.False(checkpoint.TryGet("b", out _));
    }

    [Fact]
    public void Shards_are_one_view()
    {
        Save("x-1.safetensors", "a", 1);
        Save("x-2.safetensors", "b", 2);
        _folder.Write("model.safetensors.index.json", """{"metadata":{"total_size":8},"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}}""");
        using (Checkpoint checkpoint = Checkpoint.Open(_folder.Path))
        {
            Assert.Equal(["a", "b"], checkpoint.Tensors.Select(tensor => tensor.Name));
            Assert.Equal([2f], checkpoint["b"].ToFloat32());
            Assert.Contains("'b'", Assert.Throws<CheckpointException>(() => checkpoint["bb"]).Message);
        }

        CheckpointTensor closed;
        using (Checkpoint checkpoint = Checkpoint.Open(_folder.At("model.safetensors.index.json"))) closed = checkpoint["a"];
        Assert.Throws<ObjectDisposedException>(() => closed.Pointer);
    }

    [Theory]
    [InlineData("""{"a":"x-2.safetensors"}""", "x-2.safetensors: file not found")]
    [InlineData("""{"b":"x-1.safetensors"}""", "x-1.safetensors: tensor 'b': not found; the nearest of 1 are 'a'")]
    [InlineData("""{"a":"../x-1.safetensors"}""", "expected the name of a file in the same folder")]
    [InlineData("""{"a":"..\\x-1.safetensors"}""", "expected the name of a file in the same folder")]
    [InlineData("""{"a":"/etc/passwd"}""", "expected the name of a file in the same folder")]
    [InlineData("""{"a":".."}""", "expected the name of a file in the same folder")]
    [InlineData("""{"a":""}""", "expected the name of a file in the same folder")]
    [InlineData("""{"a":7}""", "weight_map.a: expected a string")]
    [InlineData("""{"a":"x-1.safetensors","a":"x-1.safetensors"}""", "JSON")]
    [InlineData("""[]""", "weight_map: expected an object")]
    public void A_bad_index_is_refused(string map, string message)
    {
        Save("x-1.safetensors", "a", 1);
        _folder.Write("model.safetensors.index.json", $$"""{"weight_map":{{map}}}""");
        Assert.Contains(message, Assert.Throws<CheckpointException>(() => Checkpoint.Open(_folder.Path)).Message);
    }

    [Fact]
    public void An_empty_folder_is_named()
    {
        var e = Assert.Throws<CheckpointException>(() => Checkpoint.Open(_folder.Path));
        Assert.Contains(_folder.Path, e.Message);
        Assert.Contains("model.safetensors.index.json", e.Message);
    }

    [Fact]
    public void A_shape_is_checked_by_name()
    {
        Save("model.safetensors", "a", 1);
        using Checkpoint checkpoint = Checkpoint.Open(_folder.Path);
        Assert.Same(checkpoint["a"], checkpoint["a"].Require(1));
        Assert.Contains("tensor 'a': expected shape [2, 3], got [1]", Assert.Throws<CheckpointException>(() => checkpoint["a"].Require(2, 3)).Message);
    }

    private void Save(string file, string tensor, float value)
    {
        var writer = new SafetensorsWriter();
        writer.Add(tensor, [1], new[] { value });
        writer.Save(_folder.At(file));
    }
}
