using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>What a decoding step of the shipped model costs on OpenCL, beside its time: launches, memory.</summary>
public class IlgpuStepTests
{
    // As docs/ilgpu.md says. A layer: two norms, seven products, two rotations, kernels of attention (four, of patches two, and two more where a group is complete), two sums, the gate.
    // Beside the layers: two gathers, the last norm, the product with the vocabulary, the choice of the token.
    private const int Layers = 4, Beside = 5, Group = 64;

    private static string Folder => Path.Combine(Golden.Repository, "models", "shakespeare-2m");

    [Theory]
    [InlineData("opencl:0", 18)]
    [InlineData("opencl:0" + IlgpuDevices.Gpu, 20)]
    public void A_step_is_few_launches_and_takes_no_memory(string name, int perLayer)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using CausalModel model = CausalModel.Load(Folder, backend);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 1 });
        batch.Add("To be, or not to be", new() { MaxTokens = 20_000, StopTokens = [] });
        for (int i = 0; i < 3; i++) Assert.True(batch.Step(TestContext.Current.CancellationToken));

        long most = 0;
        for (int i = 0; i < Group; i++)
        {
            Dictionary<string, long> before = backend.Kernels.ToDictionary(kernel => kernel.Kernel, kernel => kernel.Launches);
            Assert.True(batch.Step(TestContext.Current.CancellationToken));
            KernelUse[] used = [.. backend.Kernels.Where(kernel => kernel.Launches > before.GetValueOrDefault(kernel.Kernel))];
            long launches = used.Sum(kernel => kernel.Launches - before.GetValueOrDefault(kernel.Kernel));
            Assert.True(launches >= Layers && launches <= Layers * perLayer + Beside, $"{launches} launches: {string.Join(", ", used.Select(kernel => $"{kernel.Kernel} {kernel.Launches - before.GetValueOrDefault(kernel.Kernel)}"))}");
            Assert.All(used, kernel => Assert.True(kernel.FirstUse > TimeSpan.Zero, kernel.Kernel));
            most = Math.Max(most, launches);
        }

        Assert.Equal(Layers * perLayer + Beside, most);     // the step that completed a group
        long allocations = backend.Memory.Allocations;
        Allocations.RequireNone(() => Assert.True(batch.Step(TestContext.Current.CancellationToken)));
        Assert.Equal(allocations, backend.Memory.Allocations);
    }

    [Fact]
    public void A_forward_pass_waits_for_nothing_behind_its_first_layer()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        using CausalModel model = CausalModel.Load(Folder, backend);
        using AttentionState state = model.CreateState(slots: 2, capacity: 100);
        var step = new Step();
        long waits = 0;
        model.AfterLayer = (layer, _) =>
        {
            if (layer == 0) waits = backend.Waits;
        };
        // Kernels are compiled first; then the batch shrinks, and the tree: rows of logits that a larger step had are no rows of these.
        foreach ((bool warm, int tokens, int nodes) in ((bool, int, int)[])[(false, 3, 3), (false, 1, 0), (true, 3, 3), (true, 3, 2), (true, 1, 0), (true, 1, 0)])
        {
            step.Clear();
            step.Advance(0, tokens);
            if (nodes > 0) step.Verify(1, TokenTree.FromParents([-1, .. Enumerable.Repeat(0, nodes - 1)]));
            model.Forward(state, step, [.. Enumerable.Range(1, tokens + nodes)]);
            if (warm) Assert.Equal((tokens, nodes, waits), (tokens, nodes, backend.Waits));
        }
    }
}
