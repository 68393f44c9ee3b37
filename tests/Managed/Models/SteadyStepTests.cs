using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>A model that decodes allocates nothing, one token at a time or a tree at a time.</summary>
public class SteadyStepTests
{
    [Theory]
    [InlineData("llama", WeightForm.Float32)]
    [InlineData("llama", WeightForm.InPlace)]
    [InlineData("gpt2", WeightForm.BFloat16)]
    [InlineData("llama", WeightForm.Int4)]
    public void Nothing_is_allocated(string model, WeightForm form)
    {
        using var folder = new TemporaryFolder();
        new TinyCheckpoint(model, linear: true, configure: config => config["max_position_embeddings"] = 4096).Save(folder.Path, ElementType.BFloat16).SaveMedusa(folder.Path, heads: 2, blocks: 1);
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var rig = new ModelRig(CausalModel.Load(folder.Path, backend, new LoadOptions { WeightForm = form }), slots: 2);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 1, 1, 2]);
        int[] ids = [1, 2, 3, 4, 5, 6];
        var step = new Step();
        var logits = new float[2 * TinyCheckpoint.Vocabulary];
        Allocations.RequireNone(() =>
        {
            // GPT-2's table of positions ends: the sequences begin anew before that.
            for (int slot = 0; slot < 2; slot++)
                if (rig.State.Length(slot) > 200) rig.State.Reset(slot);
            step.Clear();
            step.Advance(0, 1);
            step.Advance(1, 1);
            ForwardOutput output = rig.Model.Forward(rig.State, step, ids.AsSpan(0, 2));
            rig.Model.Medusa!.Forward(output.Hidden);
            backend.Read(output.Logits, logits.AsSpan());

            step.Clear();
            step.Verify(0, tree);
            rig.Model.Forward(rig.State, step, ids);
            backend.Commit(rig.State, step, (ReadOnlySpan<int>)[0, 2, 5]);
        });
    }
}
