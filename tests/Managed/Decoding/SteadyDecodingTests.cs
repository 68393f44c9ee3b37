using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>What does not grow with a text: the state, and what a step allocates, which is nothing.</summary>
public class SteadyDecodingTests
{
    private const int Vocabulary = 23;

    public static TheoryData<string> Kinds => [.. Options().Keys];

    [Theory, MemberData(nameof(Kinds))]
    public void A_step_allocates_nothing(string kind)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        batch.Add([1, 2, 3], Options()[kind]);
        Steady(batch);
    }

    [Fact]
    public void Nor_does_a_step_of_several_sequences()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        // Lookups' trees have many sizes; the toy keeps a buffer for each, so that one is left out.
        foreach ((string kind, GenerationOptions options) in Options())
            if (kind != "lookup" && kind != "auto") batch.Add([1, 2, 3], options);
        Steady(batch);
    }

    [Fact, Trait("tier", "full")]
    public void The_state_of_a_linearized_sequence_does_not_grow_in_a_long_text() => StateDoesNotGrow(50_000, from: 1000);

    [Fact]
    public void The_state_of_a_linearized_sequence_does_not_grow() => StateDoesNotGrow(400, from: 1);

    private static void StateDoesNotGrow(int tokens, int from)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 1 });
        Sequence sequence = batch.Add([1], new() { MaxTokens = tokens, Temperature = 1, Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Chain(3) });
        long bytes = batch.State.Bytes(sequence.Slot), saved = -1;
        while (batch.Step(TestContext.Current.CancellationToken))
        {
            Assert.Equal(bytes, batch.State.Bytes(sequence.Slot));
            // What a snapshot holds differs by the rows since the last group's end, and by nothing else.
            if (sequence.Count >= from && batch.State.Length(sequence.Slot) % 16 == 0)
            {
                using var stream = new MemoryStream();
                batch.State.Snapshot(sequence.Slot, stream);
                if (saved < 0) saved = stream.Length;
                Assert.Equal(saved, stream.Length);
            }
        }

        Assert.Equal(tokens + 1, sequence.Count);
        Assert.True(saved > 0);
    }

    private static Dictionary<string, GenerationOptions> Options()
    {
        var options = new GenerationOptions { MaxTokens = 20_000, StopTokens = [] };
        GenerationOptions sampled = options with { Temperature = 0.9f, TopP = 0.95f, MinP = 0.01f, TopK = 20, Seed = 3 };
        return new()
        {
            ["greedy"] = options,
            ["medusa"] = options with { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 },
            ["auto"] = options with { Drafter = Drafter.Medusa },
            ["lookup"] = sampled with { Drafter = Drafter.Lookup, TreePolicy = TreePolicy.Chain(4) },
            ["sampled"] = sampled,
            ["sampled medusa"] = sampled with { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Chain(2) },
            ["typical"] = sampled with { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Chain(3), Acceptance = Acceptance.Typical },
            ["penalty"] = sampled with { RepetitionPenalty = 1.2f, Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Chain(2) },
            ["log-probabilities"] = options with { LogProbabilities = true },
        };
    }

    private static void Steady(DecodingBatch batch) => Allocations.RequireNone(() => Assert.True(batch.Step(TestContext.Current.CancellationToken)));
}
