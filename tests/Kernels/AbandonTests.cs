using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>A step that is given up between its layers.</summary>
public class AbandonTests
{
    private static readonly AttentionSpec Spec = AttentionSpec.Augmented(2, 1, 8, groupSize: 16, convTaps: 4);

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names];

    [Theory, MemberData(nameof(Names))]
    public void Before_the_first_layer_nothing_has_happened(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, [Spec, Spec]);
        Tokens tokens = Tokens.Random(new Random(1), Spec, 9);
        rig.Advance(0, tokens, 9);
        byte[] before = rig.Snapshot(0);
        Begin(rig, 3);
        rig.State.Abandon(rig.Step);

        Assert.False(rig.State.IsBroken(0));
        Assert.Equal(before, rig.Snapshot(0));
        Assert.Contains("has failed", Assert.Throws<InvalidOperationException>(() => rig.State.Complete(rig.Step)).Message, StringComparison.Ordinal);
        Assert.Contains("has failed", Assert.Throws<InvalidOperationException>(() => rig.Attend(0, Feed.Advance(0, tokens.Range(0, 3)))).Message, StringComparison.Ordinal);
        rig.Advance(0, tokens, 2);
        Assert.Equal(11, rig.State.Length(0));
    }

    [Theory, MemberData(nameof(Names))]
    public void After_a_layer_the_slots_that_were_moving_are_broken(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, [Spec, Spec]);
        Tokens tokens = Tokens.Random(new Random(2), Spec, 9);
        rig.Advance(0, tokens, 9);
        rig.Advance(1, tokens, 9);
        byte[] verified = rig.Snapshot(1), moving = rig.Snapshot(0);
        rig.Step.Clear();
        rig.Step.Advance(0, 3);
        rig.Step.Verify(1, TokenTree.FromParents([-1, 0, 0]));
        Tokens few = tokens.Range(0, 3);
        rig.Attend(0, Feed.Advance(0, few), Feed.Verify(1, rig.Step[1].Tree, few));
        rig.State.Abandon(rig.Step);
        rig.State.Abandon(rig.Step);

        Assert.True(rig.State.IsBroken(0));
        Assert.Contains("slot 0 was left half-written", Assert.Throws<BrokenSlotException>(() => Begin(rig, 1)).Message, StringComparison.Ordinal);
        Assert.False(rig.State.IsBroken(1));
        Assert.Equal(verified, rig.Snapshot(1));
        rig.Restore(0, moving);
        Assert.Equal(moving, rig.Snapshot(0));
    }

    [Fact]
    public void Only_a_step_that_is_under_way_can_be_given_up()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var rig = new AttentionRig(backend, [Spec]);
        using var other = new AttentionRig(backend, [Spec]);
        rig.Step.Advance(0, 1);
        Assert.Contains("has not begun", Refused(rig.State, rig.Step), StringComparison.Ordinal);
        rig.State.Begin(rig.Step);
        Assert.Contains("another state", Refused(other.State, rig.Step), StringComparison.Ordinal);
        rig.Advance(0, Tokens.Random(new Random(3), Spec, 1), 1);
        Assert.Contains("expected Begun, is Completed", Refused(rig.State, rig.Step), StringComparison.Ordinal);
    }

    private static string Refused(AttentionState state, Step step) => Assert.Throws<InvalidOperationException>(() => state.Abandon(step)).Message;

    private static void Begin(AttentionRig rig, int tokens)
    {
        rig.Step.Clear();
        rig.Step.Advance(0, tokens);
        rig.State.Begin(rig.Step);
    }
}
