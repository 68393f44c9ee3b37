using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>What a model takes it gives back, and nothing stays of a load that fails, wherever it fails.</summary>
public sealed class OwnershipTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("llama", null)]
    [InlineData("gpt2", null)]
    [InlineData("llama", WeightForm.InPlace)]
    public void A_load_that_fails_leaves_nothing(string model, WeightForm? form)
    {
        using var device = new CountingDevice();
        var options = new LoadOptions { WeightForm = form };
        var checkpoint = new TinyCheckpoint(model, linear: true);
        checkpoint.SaveMedusa(_folder.Path, heads: 2, blocks: 1);
        int made = 0;
        foreach (string name in checkpoint.Tensors.Keys.ToArray())
        {
            checkpoint.Tensors.Remove(name, out (int[], float[]) tensor);
            checkpoint.Save(_folder.Path);
            Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, device, options));
            Assert.True(device.Alive == 0, $"without {name}: {device.Alive} of {device.Made - made} things are still allocated");
            Assert.True(device.Made > made, name);
            made = device.Made;
            checkpoint.Tensors[name] = tensor;
        }

        // The model is whole, its heads are not.
        checkpoint.Save(_folder.Path);
        _folder.Write("medusa_config.json", """{"medusa_num_heads": 3}""");
        Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, device, options));
        Assert.Equal(0, device.Alive);
        // All is whole, but there is more than the model knows.
        _folder.Write("medusa_config.json", """{"medusa_num_heads": 1}""");
        Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, device, options with { Strict = true }));
        Assert.Equal(0, device.Alive);
        CausalModel.Load(_folder.Path, device, options).Dispose();
        Assert.Equal(0, device.Alive);
    }

    [Fact]
    public void Files_are_open_only_while_weights_lie_in_them()
    {
        if (!OperatingSystem.IsLinux()) return;             // elsewhere nobody lists what is mapped
        new TinyCheckpoint("llama", linear: true).Save(_folder.Path).SaveMedusa(_folder.Path, heads: 1, blocks: 1);
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using (CausalModel.Load(_folder.Path, backend)) Assert.Equal(0, Mapped());
        CausalModel model = CausalModel.Load(_folder.Path, backend, new LoadOptions { WeightForm = WeightForm.InPlace });
        Assert.Equal(2, Mapped());
        model.Dispose();
        Assert.Equal(0, Mapped());
        _folder.Write("medusa_config.json", """{"medusa_num_heads": 9}""");
        Assert.Throws<CheckpointException>(() => CausalModel.Load(_folder.Path, backend, new LoadOptions { WeightForm = WeightForm.InPlace }));
        Assert.Equal(0, Mapped());
    }

    private int Mapped() => File.ReadLines("/proc/self/maps").Where(line => line.Contains(_folder.Path, StringComparison.Ordinal)).Select(line => line[line.IndexOf('/', StringComparison.Ordinal)..]).Distinct().Count();
}
