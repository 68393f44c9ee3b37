using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Acceptance on random trees with few tokens, so that siblings often carry the same one; several entries in a step.</summary>
public class AcceptTests
{
    private const int Vocabulary = 5;

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants)];

    [Theory, MemberData(nameof(Names))]
    public void The_chosen_path_is_the_oracles(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        for (int seed = 0; seed < 60; seed++)
        {
            Step step = RandomStep(seed, out int[] tokens, out _);
            var random = new Random(seed);
            int[] chosen = [.. Enumerable.Range(0, step.LogitCount).Select(_ => random.Next(Vocabulary))];
            (int[] wantAccepted, int[] wantNext) = Accept(oracle, step, tokens, chosen);
            (int[] accepted, int[] next) = Accept(rig, step, tokens, chosen);
            Assert.Equal(wantAccepted, accepted);
            Assert.Equal(wantNext, next);
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void The_typical_path_is_the_oracles(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        for (int seed = 0; seed < 60; seed++)
        {
            Step step = RandomStep(seed, out int[] tokens, out Argument logits);
            var random = new Random(seed);
            (float temperature, float threshold, float alpha) = (random.Pick(0, 0.5f, 1), random.Pick(0.05f, 0.2f), random.Pick(0.3f, 0.7f));
            Assert.Equal(Typical(oracle, step, tokens, logits, temperature, threshold, alpha), Typical(rig, step, tokens, logits, temperature, threshold, alpha));
        }
    }

    // A backend may read the trees where a state has them: of a step that has begun, also where another has begun since.
    [Theory, MemberData(nameof(Names))]
    public void It_is_the_same_for_a_step_that_a_state_has_begun(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        AttentionState state = rig.Own(rig.Backend.CreateState([AttentionSpec.Softmax(1, 1, 1)], 8, 256));
        for (int seed = 0; seed < 20; seed++)
        {
            Step step = RandomStep(seed, out int[] tokens, out Argument logits);
            var random = new Random(seed);
            int[] chosen = [.. Enumerable.Range(0, step.LogitCount).Select(_ => random.Next(Vocabulary))];
            (int[] accepted, int[] next) = Accept(oracle, step, tokens, chosen);
            int[] typical = Typical(oracle, step, tokens, logits, 1, 0.1f, 0.3f);
            state.Begin(step);
            Check();
            var other = new Step();
            other.Verify(7, random.Tree(80));
            other.Advance(6, 3);
            state.Begin(other);
            Check();
            state.Abandon(other);

            void Check()
            {
                Assert.Equal((accepted, next), Accept(rig, step, tokens, chosen), ((int[] A, int[] B) x, (int[] A, int[] B) y) => x.A.SequenceEqual(y.A) && x.B.SequenceEqual(y.B));
                Assert.Equal(typical, Typical(rig, step, tokens, logits, 1, 0.1f, 0.3f));
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Of_equal_children_the_one_with_the_longer_path_is_taken(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var step = new Step();
        step.Verify(4, TokenTree.FromParents([-1, 0, 0, 2, 0, 4, -1]));
        // Nodes 1, 2 and 4 all carry token 7; 3 and 5 what is wanted after 2 and 4; 6 is another root.
        (int[] accepted, int[] next) = Accept(rig, step, [1, 7, 7, 8, 7, 8, 1], [7, 50, 8, 60, 8, 70, 80]);
        Assert.Equal([0, 2, 3], accepted);
        Assert.Equal([60], next);
    }

    [Theory, MemberData(nameof(Names))]
    public void Entries_that_move_have_no_path_and_the_token_of_their_last_row(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var step = new Step();
        step.Advance(0, 4);
        step.Add(1, TokenTree.Path(2), moves: true, LogitRows.None);
        step.Verify(2, TokenTree.Path(2));
        step.Verify(3, TokenTree.Path(0));
        (int[] accepted, int[] next) = Accept(rig, step, [1, 1, 1, 1, 2, 2, 3, 9], [42, 9, 43]);
        Assert.Equal([-1, -1, -1, -1, -1, -1, -1, -1, 0, 1, -1, -1, -1, -1, -1, -1], accepted);
        Assert.Equal([42, -1, 43, -1], next);
    }

    [Theory, MemberData(nameof(Names))]
    public void Tokens_outside_the_vocabulary_are_refused(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var step = new Step();
        step.Verify(0, TokenTree.Path(2));
        DeviceTensor accepted = rig.IntegerOutput(1, 2), logits = rig.Upload(Argument.Random(1, ElementType.Float32, 0, 2, 5));
        var refused = Assert.Throws<ArgumentException>(() => rig.Backend.AcceptTypical(step, rig.Upload(0, 5), logits, 1, 0.1f, 0.3f, accepted));
        Assert.Equal("tokens: expected 0 to 4, got 5 (Parameter 'tokens')", refused.Message);
        Assert.Equal([-99, -99], rig.ReadIntegers(accepted));
    }

    [Theory, MemberData(nameof(Names))]
    public void Thresholds_that_are_no_numbers_are_refused(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var step = new Step();
        step.Verify(0, TokenTree.Path(2));
        DeviceTensor accepted = rig.IntegerOutput(1, 2), logits = rig.Upload(Argument.Random(1, ElementType.Float32, 0, 2, 5)), tokens = rig.Upload(0, 1);
        foreach ((float temperature, float threshold, float alpha, string why) in new[]
        {
            (-1, 0.1f, 0.3f, "temperature: expected 0 or more, got -1 (Parameter 'temperature')"), (float.NaN, 0.1f, 0.3f, "temperature: expected 0 or more, got NaN (Parameter 'temperature')"),
            (1, float.NaN, 0.3f, "threshold: expected a number, got NaN (Parameter 'threshold')"), (1, 0.1f, float.NaN, "alpha: expected a number, got NaN (Parameter 'alpha')"),
        })
            Assert.Equal(why, Assert.Throws<ArgumentException>(() => rig.Backend.AcceptTypical(step, tokens, logits, temperature, threshold, alpha, accepted)).Message);
        Assert.Equal([-99, -99], rig.ReadIntegers(accepted));
    }

    [Theory, MemberData(nameof(Names))]
    public void Verified_entries_want_logits_for_every_row(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var step = new Step();
        step.Verify(0, TokenTree.Path(3), LogitRows.Last);
        DeviceTensor accepted = rig.IntegerOutput(1, 3), next = rig.IntegerOutput(1);
        var refused = Assert.Throws<ArgumentException>(() => rig.Backend.Accept(step, rig.Upload(0, 1, 2), rig.Upload(1), accepted, next));
        Assert.Equal("step: entry 0 is verified, expected logits for its 3 rows, got 1 (Parameter 'step')", refused.Message);
    }

    private static Step RandomStep(int seed, out int[] tokens, out Argument logits)
    {
        var random = new Random(seed);
        var step = new Step();
        int entries = random.Next(1, 4);
        for (int i = 0; i < entries; i++)
        {
            if (random.Chance(0.25)) step.Advance(i, random.Next(0, 5));
            else step.Verify(i, random.Tree(random.Next(1, 70)));
        }

        tokens = [.. Enumerable.Range(0, step.Tokens).Select(_ => random.Next(Vocabulary))];
        logits = Argument.Random(seed, random.Pick(ElementType.Float32, ElementType.BFloat16), 0, step.LogitCount, Vocabulary);
        logits = logits with { Numbers = Array.ConvertAll(logits.Numbers, x => 2 * x) };
        return step;
    }

    private static (int[] Accepted, int[] Next) Accept(OpRig rig, Step step, int[] tokens, int[] chosen)
    {
        DeviceTensor accepted = rig.IntegerOutput(step.Entries, step.MaxDepth), next = rig.IntegerOutput(step.Entries);
        rig.Backend.Accept(step, rig.Upload(tokens), rig.Upload(chosen), accepted, next);
        return (rig.ReadIntegers(accepted), rig.ReadIntegers(next));
    }

    private static int[] Typical(OpRig rig, Step step, int[] tokens, Argument logits, float temperature, float threshold, float alpha)
    {
        DeviceTensor accepted = rig.IntegerOutput(step.Entries, step.MaxDepth);
        rig.Backend.AcceptTypical(step, rig.Upload(tokens), rig.Upload(logits), temperature, threshold, alpha, accepted);
        return rig.ReadIntegers(accepted);
    }
}
