using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>A saved sequence goes on as if nothing had happened, and damaged bytes are refused.</summary>
public class SequenceSnapshotTests
{
    private const int Vocabulary = 23;

    public static TheoryData<string, bool> Models => new(from name in BackendsUnderTest.LosslessNames from softmax in new[] { false, true } select (name, softmax));

    [Theory, MemberData(nameof(Models))]
    public void A_saved_sequence_goes_on_where_it_was(string backendName, bool softmax)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax) { Text = ToyTokenizer.Letters(Vocabulary) };
        var random = new Random(8);
        for (int round = 0; round < 12; round++)
        {
            int[] prompt = SpeculationTests.Prompt(random);
            GenerationOptions options = SpeculationTests.Options(random) with
            {
                MaxTokens = 40,
                Processors = [],
                Drafter = random.Pick(Enum.GetValues<Drafter>()),
                TreePolicy = random.Pick(TreePolicy.Auto, TreePolicy.Chain(2), TreePolicy.Medusa63, TreePolicy.Choices([[0], [1], [1, 2]])),
                LogProbabilities = random.Chance(0.5),
                StopStrings = random.Chance(0.5) ? ["ab", "cde"] : [],
                StopTokens = random.Pick<int[]?>(null, [], [3]),
            };
            using var first = new DecodingBatch(model, new DecodingBatchOptions { PrefillChunk = 20 });
            Sequence sequence = first.Add(prompt, options);
            int steps = random.Next(0, 20);
            for (int i = 0; i < steps; i++) first.Step(TestContext.Current.CancellationToken);
            string taken = sequence.TakeText();
            byte[] saved = Save(sequence);

            using var second = new DecodingBatch(model, new DecodingBatchOptions { PrefillChunk = 3 });
            Sequence restored = second.Restore(new MemoryStream(saved));
            Assert.Equal(sequence.FinishReason, restored.FinishReason);
            GenerationOptions got = restored.Options;
            Assert.Equal(options with { StopTokens = got.StopTokens, StopStrings = got.StopStrings, TreePolicy = got.TreePolicy, Processors = got.Processors }, got);
            Assert.Equal(options.StopTokens, got.StopTokens);
            Assert.Equal(options.StopStrings, got.StopStrings);
            Assert.Equal(options.TreePolicy.ToString(), got.TreePolicy.ToString());
            first.Run(TestContext.Current.CancellationToken);
            second.Run(TestContext.Current.CancellationToken);
            Assert.Equal(sequence.Tokens.ToArray(), restored.Tokens.ToArray());
            Assert.Equal(sequence.LogProbabilities.ToArray(), restored.LogProbabilities.ToArray());
            Assert.Equal((sequence.FinishReason, sequence.PromptLength), (restored.FinishReason, restored.PromptLength));
            Assert.Equal((taken, sequence.TakeText()), (taken, restored.TakeText()));
            int[] want = OneAtATime.Generate(model, prompt, options);
            Assert.Equal(want[..restored.Generated.Length], restored.Generated.ToArray());
        }
    }

    [Fact]
    public void Typical_acceptance_goes_on_with_the_same_trees()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, sharpness: 0.5);
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 60, Temperature = 1, Seed = 3, Acceptance = Acceptance.Typical, Drafter = Drafter.Medusa, TypicalThreshold = 0.02f };
        Sequence sequence = batch.Add([1, 2, 3], options);
        for (int i = 0; i < 6; i++) batch.Step(TestContext.Current.CancellationToken);
        Sequence restored = batch.Restore(new MemoryStream(Save(sequence)));
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(sequence.Tokens.ToArray(), restored.Tokens.ToArray());
    }

    [Fact]
    public void Damaged_and_foreign_bytes_are_refused_and_take_no_slot()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 2 });
        Sequence sequence = batch.Add([1, 2, 3], new() { MaxTokens = 9, Drafter = Drafter.Medusa });
        batch.Run(TestContext.Current.CancellationToken);
        byte[] saved = Save(sequence);
        for (int i = 0; i < saved.Length; i += i < 200 || i > saved.Length - 40 ? 1 : 97)
        {
            byte[] flipped = [.. saved];
            flipped[i] ^= (byte)(1 << (i % 8));
            Refused(flipped, "snapshot: ");
        }

        for (int length = 0; length < saved.Length; length += 211) Refused(saved[..length], "snapshot: ");
        Refused([], "snapshot: ends early");
        Refused(new byte[4000], "snapshot: a body of 0 bytes cannot be");
        Assert.Equal(1, batch.FreeSlots);

        using var softmax = new ToyModel(backend, Vocabulary, softmax: true);
        using var softmaxBatch = new DecodingBatch(softmax);
        Assert.StartsWith("snapshot: layer 0 is of another spec", Assert.Throws<SnapshotException>(() => softmaxBatch.Restore(new MemoryStream(saved))).Message, StringComparison.Ordinal);
        Assert.Equal(8, softmaxBatch.FreeSlots);
        using var wide = new ToyModel(backend, Vocabulary + 1);
        using var wideBatch = new DecodingBatch(wide);
        Assert.Equal("snapshot: expected a model of 24 tokens, got one of 23", Assert.Throws<SnapshotException>(() => wideBatch.Restore(new MemoryStream(saved))).Message);

        Sequence restored = batch.Restore(new MemoryStream(saved));
        Assert.Equal(sequence.Tokens.ToArray(), restored.Tokens.ToArray());
        Assert.Throws<InvalidOperationException>(() => batch.Restore(new MemoryStream(saved)));

        void Refused(byte[] bytes, string message) =>
            Assert.StartsWith(message, Assert.Throws<SnapshotException>(() => batch.Restore(new MemoryStream(bytes))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_longer_sequence_than_the_state_takes_is_refused()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, softmax: true);
        using var roomy = new DecodingBatch(model);
        Sequence sequence = roomy.Add(new int[30], new() { MaxTokens = 11 });
        roomy.Run(TestContext.Current.CancellationToken);
        using var narrow = new DecodingBatch(model, new DecodingBatchOptions { Capacity = 39 });
        Assert.Equal("prompt: expected at most 39 tokens, as many as the state was made for, got 40", Assert.Throws<OutOfCapacityException>(() => narrow.Restore(new MemoryStream(Save(sequence)))).Message);
        using var exact = new DecodingBatch(model, new DecodingBatchOptions { Capacity = 40 });
        Assert.Equal(41, exact.Restore(new MemoryStream(Save(sequence))).Count);
    }

    [Fact]
    public void Code_of_the_callers_is_not_saved()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 30, Processors = [new NoTriples()], Temperature = 1 };
        Sequence sequence = batch.Add([1, 2, 3], options);
        for (int i = 0; i < 7; i++) batch.Step(TestContext.Current.CancellationToken);
        byte[] saved = Save(sequence);
        Assert.Contains("give its options", Assert.Throws<SnapshotException>(() => batch.Restore(new MemoryStream(saved))).Message, StringComparison.Ordinal);
        Sequence restored = batch.Restore(new MemoryStream(saved), options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, [1, 2, 3], options), restored.Generated.ToArray());
    }

    private static byte[] Save(Sequence sequence)
    {
        using var stream = new MemoryStream();
        sequence.Save(stream);
        return stream.ToArray();
    }
}
