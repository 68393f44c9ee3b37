using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Sequences come, go, fork, are cancelled and resumed beside each other; each text is what it would be alone.</summary>
public class ContinuousBatchingTests
{
    private const int Vocabulary = 23;
    private const int Slots = 8;

    public static TheoryData<string, bool, int> Histories => new(
        from name in BackendsUnderTest.LosslessNames from softmax in new[] { false, true } from seed in Enumerable.Range(1, 3) select (name, softmax, seed));

    [Theory, MemberData(nameof(Histories))]
    public void A_text_does_not_depend_on_its_company(string backendName, bool softmax, int seed)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax);
        var random = new Random(seed);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = Slots, Capacity = 1000, PrefillChunk = random.Next(1, 60) });
        var company = new Company(batch, random);
        for (int step = 0; step < 100; step++)
        {
            company.Change();
            Assert.Equal(Slots, batch.FreeSlots + batch.Sequences.Count);
            company.Step();
        }

        while (company.Step()) { }
        company.Part();
        Assert.Equal(Slots, batch.FreeSlots);
        Assert.True(company.Joined > Slots && company.Forked > 0 && company.Cancelled > 0 && company.Saved > 0, company.ToString());
    }

    [Fact]
    public void Typical_acceptance_writes_the_same_text_in_company()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, sharpness: 0.7);
        var random = new Random(5);
        foreach (int chunk in new[] { 1, 7, 64 })
        {
            using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = Slots, PrefillChunk = chunk });
            List<(Sequence Sequence, int[] Want)> all = [];
            for (int i = 0; i < Slots; i++)
            {
                int[] prompt = SpeculationTests.Prompt(random);
                var options = new GenerationOptions
                {
                    MaxTokens = 40,
                    Temperature = random.Pick(0f, 0.8f, 1f),
                    Seed = (ulong)i,
                    Acceptance = Acceptance.Typical,
                    TypicalThreshold = random.Pick(0.02f, 0.05f),
                    Drafter = random.Pick(Drafter.Lookup, Drafter.Medusa),
                };
                int[] want = SpeculationTests.Generate(model, prompt, options);
                all.Add((batch.Add(prompt, options), want));
                batch.Step(TestContext.Current.CancellationToken);
            }

            batch.Run(TestContext.Current.CancellationToken);
            foreach ((Sequence sequence, int[] want) in all) Assert.Equal(want, sequence.Generated.ToArray());
        }
    }

    [Fact]
    public void No_slot_is_free_until_one_leaves()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 2 });
        using Sequence first = batch.Add([1]);
        using Sequence second = batch.Add([2]);
        Assert.Equal("all 2 slots are taken; dispose a sequence first", Assert.Throws<InvalidOperationException>(() => batch.Add([3])).Message);
        Assert.Throws<InvalidOperationException>(() => first.Fork());
        batch.Step(TestContext.Current.CancellationToken);
        first.Dispose();
        first.Dispose();
        Assert.Equal(1, batch.FreeSlots);
        Assert.Throws<ObjectDisposedException>(() => first.Continue([1]));
        Assert.Throws<ObjectDisposedException>(() => first.Fork());
        var options = new GenerationOptions { MaxTokens = 20 };
        Sequence third = batch.Add([4, 5], options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, [4, 5], options), third.Generated.ToArray());
        Assert.Equal([second, third], batch.Sequences);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void A_sequence_out_of_room_ends_and_the_others_go_on(bool softmax)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax, maxPositions: softmax ? int.MaxValue : 40);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 3, Capacity = 40 });
        int[] prompt = [.. Enumerable.Range(0, 30).Select(i => i % Vocabulary)];
        var endless = new GenerationOptions { MaxTokens = 100, Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 };
        Sequence crowded = batch.Add(prompt, endless);
        Sequence exact = batch.Add(prompt.AsSpan(0, 20), endless with { MaxTokens = 21 });
        Sequence roomy = batch.Add([7], endless with { MaxTokens = 30, Drafter = Drafter.Lookup, TreePolicy = TreePolicy.Auto });
        batch.Run(TestContext.Current.CancellationToken);
        // 40 positions take 40 tokens; the one that follows them is text, and the last.
        Assert.Equal((FinishReason.Capacity, 41), (crowded.FinishReason, crowded.Count));
        Assert.Equal((FinishReason.MaxTokens, 41), (exact.FinishReason, exact.Count));
        Assert.Equal((FinishReason.MaxTokens, 31), (roomy.FinishReason, roomy.Count));
        using var free = new ToyModel(backend, Vocabulary, softmax: softmax);
        Assert.Equal(OneAtATime.Generate(free, prompt, endless with { MaxTokens = 11 }), crowded.Generated.ToArray());
        Assert.Equal(OneAtATime.Generate(free, [7], endless with { MaxTokens = 30 }), roomy.Generated.ToArray());

        string limit = softmax ? "the state was made for" : "the model has positions";
        Assert.Equal($"prompt: expected at most 40 tokens, as many as {limit}, got 42", Assert.Throws<OutOfCapacityException>(() => crowded.Continue([1])).Message);
        roomy.Dispose();
        Assert.Equal($"prompt: expected at most 40 tokens, as many as {limit}, got 41", Assert.Throws<OutOfCapacityException>(() => batch.Add(new int[41])).Message);
        Sequence copy = crowded.Fork();
        Assert.Equal(crowded.Tokens.ToArray(), copy.Tokens.ToArray());
    }

    [Theory, InlineData("cpu"), InlineData("oracle")]
    public void A_step_that_fails_breaks_its_moving_sequences_and_says_so(string backendName)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 4 });
        var options = new GenerationOptions { MaxTokens = 40, Temperature = 1, Seed = 3 };
        int[] longPrompt = [.. Enumerable.Range(0, 40).Select(i => i % Vocabulary)];
        Sequence plain = batch.Add([1, 2], options);
        Sequence tree = batch.Add([3, 4], options with { CustomDrafter = new Fixed([1, 2, 3], levels: 3, ranks: 1), TreePolicy = TreePolicy.Chain(3) });
        for (int i = 0; i < 10; i++) batch.Step(TestContext.Current.CancellationToken);
        Sequence prompted = batch.Add(longPrompt, options);

        // The guesses are in every step of the second one, so this step fails: the others' rows are in it too.
        model.FailOnceAt = 2;
        Assert.True(batch.Step(TestContext.Current.CancellationToken));
        Assert.Equal((FinishReason.Failed, FinishReason.None, FinishReason.Failed), (plain.FinishReason, tree.FinishReason, prompted.FinishReason));
        Assert.Equal("toy: a kernel failed", plain.Error!.Message);
        Assert.Equal("the sequence has failed, Recompute it first: toy: a kernel failed", Assert.Throws<InvalidOperationException>(() => plain.Continue([1])).Message);
        Assert.Throws<InvalidOperationException>(() => plain.Fork());
        Assert.Throws<InvalidOperationException>(() => plain.Save(Stream.Null));
        int[] before = plain.Tokens.ToArray();
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(before, plain.Tokens.ToArray());
        Assert.Equal(OneAtATime.Generate(model, [3, 4], options), tree.Generated.ToArray());

        plain.Recompute();
        prompted.Dispose();                                 // its slot is broken, and whole for the next one
        Sequence next = batch.Add(longPrompt, options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Null(plain.Error);
        Assert.Equal(OneAtATime.Generate(model, [1, 2], options), plain.Generated.ToArray());
        Assert.Equal(OneAtATime.Generate(model, longPrompt, options), next.Generated.ToArray());
    }

    [Fact]
    public void A_failed_step_that_harmed_nobody_is_the_callers()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 30, CustomDrafter = new Fixed([1, 2, 3], levels: 3, ranks: 1), TreePolicy = TreePolicy.Chain(3) };
        Sequence sequence = batch.Add([5], options);
        batch.Step(TestContext.Current.CancellationToken);
        model.FailOnceAt = 2;
        Assert.Throws<InvalidOperationException>(() => batch.Step(TestContext.Current.CancellationToken));
        Assert.Equal(FinishReason.None, sequence.FinishReason);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, [5], options), sequence.Generated.ToArray());
    }

    [Fact]
    public void A_callers_code_that_throws_ends_its_own_sequence()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new Partial() };
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 30, Temperature = 1, Seed = 8 };
        Sequence drafted = batch.Add([1], options with { CustomDrafter = new Meddler(sequence => throw new FormatException($"drafter at {sequence.Count}")), TreePolicy = TreePolicy.Chain(1) });
        Sequence processed = batch.Add([2], options with { Processors = [new Custom((path, _) => { if (path.Length == 9) throw new FormatException("processor"); })] });
        Sequence spelled = batch.Add([3], options with { StopStrings = ["stop"] });
        Sequence bystander = batch.Add([4], options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal((FinishReason.Failed, "drafter at 2"), (drafted.FinishReason, drafted.Error!.Message));
        Assert.Equal((FinishReason.Failed, "processor", 9), (processed.FinishReason, processed.Error!.Message, processed.Count));
        Assert.Equal((FinishReason.Failed, "no bytes from token 11 on"), (spelled.FinishReason, spelled.Error!.Message));
        Assert.Equal(OneAtATime.Generate(model, [4], options), bystander.Generated.ToArray());
    }

    [Fact]
    public void Cancellation_leaves_the_sequences_usable()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 50, Temperature = 1, Seed = 2, Drafter = Drafter.Medusa };
        Sequence one = batch.Add([1, 2, 3], options), other = batch.Add([4], options);
        using var cancellation = new CancellationTokenSource();
        for (int i = 0; i < 3; i++) batch.Step(cancellation.Token);
        cancellation.Cancel();
        int forwards = (int)model.Forwards;
        Assert.Throws<OperationCanceledException>(() => batch.Run(cancellation.Token));
        Assert.Equal(forwards, model.Forwards);
        one.Cancel();
        Assert.Equal(FinishReason.Cancelled, one.FinishReason);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(FinishReason.MaxTokens, other.FinishReason);
        one.Resume();
        other.Resume();
        Assert.True(other.IsFinished);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, [1, 2, 3], options), one.Generated.ToArray());
        Assert.Equal(OneAtATime.Generate(model, [4], options), other.Generated.ToArray());
    }

    [Fact]
    public void Nothing_is_disposed_or_changed_in_the_middle_of_a_step()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        var batch = new DecodingBatch(model);
        int refused = 0;
        var options = new GenerationOptions { MaxTokens = 20 };
        Sequence sequence = batch.Add([1, 2], options with { CustomDrafter = new Meddler(Meddle), TreePolicy = TreePolicy.Chain(1) });
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(18 * 7, refused);                      // neither the prompt's step asks a drafter nor the one with room for one token
        Assert.Equal(OneAtATime.Generate(model, [1, 2], options), sequence.Generated.ToArray());
        batch.Dispose();
        batch.Dispose();
        sequence.Dispose();
        Assert.True(sequence.IsDisposed);
        Assert.Throws<ObjectDisposedException>(() => batch.Step(TestContext.Current.CancellationToken));
        Assert.Throws<ObjectDisposedException>(() => batch.Add([1]));
        Assert.Throws<ObjectDisposedException>(() => batch.Restore(Stream.Null));

        void Meddle(Sequence own)
        {
            foreach (Action act in new Action[]
            {
                batch.Dispose, own.Dispose, own.Recompute, () => own.Continue([1]), () => own.Fork(), () => batch.Add([1]), () => batch.Step(TestContext.Current.CancellationToken),
            })
            {
                var e = Assert.Throws<InvalidOperationException>(act);
                Assert.Equal("the batch is in the middle of a step; calls on one batch must follow each other", e.Message);
                refused++;
            }
        }
    }

    [Fact]
    public void A_batch_may_outlive_its_backend()
    {
        KernelBackend backend = BackendsUnderTest.Open("cpu");
        var model = new ToyModel(backend, Vocabulary);
        var batch = new DecodingBatch(model);
        batch.Add([1]);
        backend.Dispose();
        model.Dispose();
        batch.Dispose();
        Assert.Empty(batch.Sequences);
    }

    [Fact]
    public void Drafters_of_sequences_that_left_are_let_go()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        WeakReference drafter = AddAndLeave(batch);
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Assert.False(drafter.IsAlive);

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static WeakReference AddAndLeave(DecodingBatch batch)
        {
            var drafter = new Fixed([1, 2, 3], levels: 3, ranks: 1);
            using Sequence sequence = batch.Add([1, 2], new GenerationOptions { CustomDrafter = drafter, MaxTokens = 10 });
            batch.Run();
            sequence.Continue([3], new GenerationOptions { MaxTokens = 2 });
            batch.Run();
            return new WeakReference(drafter);
        }
    }

    [Fact]
    public void What_does_not_fit_is_refused_by_name()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, medusa: false);
        using var batch = new DecodingBatch(model);
        Assert.Equal("prompt: expected at least one token, got none (Parameter 'prompt')", Assert.Throws<ArgumentException>(() => batch.Add(ReadOnlySpan<int>.Empty)).Message);
        Assert.StartsWith("prompt: expected tokens from 0 to 22, got 23", Assert.Throws<ArgumentException>(() => batch.Add([1, 23])).Message, StringComparison.Ordinal);
        Assert.StartsWith("prompt: expected tokens from 0 to 22, got -1", Assert.Throws<ArgumentException>(() => batch.Add([-1])).Message, StringComparison.Ordinal);
        Assert.StartsWith("prompt: expected a text, got an empty one", Assert.Throws<ArgumentException>(() => batch.Add("")).Message, StringComparison.Ordinal);
        Assert.StartsWith("prompt: the model has no tokenizer", Assert.Throws<ArgumentException>(() => batch.Add("a")).Message, StringComparison.Ordinal);
        Refused(new() { MaxTokens = 0 }, "MaxTokens: expected 1 or more, got 0");
        Refused(new() { Temperature = -1 }, "Temperature: expected 0 or more, got -1");
        Refused(new() { Temperature = float.NaN }, "Temperature: expected 0 or more, got NaN");
        Refused(new() { TopK = -2 }, "TopK: expected 0 or more, got -2");
        Refused(new() { TopP = 0 }, "TopP: expected a number in (0, 1], got 0");
        Refused(new() { MinP = 1.5f }, "MinP: expected a number in [0, 1], got 1.5");
        Refused(new() { RepetitionPenalty = 0 }, "RepetitionPenalty: expected a number above 0, got 0");
        Refused(new() { StopStrings = ["a", ""] }, "StopStrings: expected strings that are not empty, got an empty one");
        Refused(new() { StopStrings = ["a"] }, "StopStrings: expected none where the model has no tokenizer, got 1");
        Refused(new() { Drafter = Drafter.Medusa }, "Drafter: expected None or Lookup, the model has no Medusa heads, got Medusa");
        Refused(new() { Drafter = (Drafter)9 }, "Drafter: expected None, Medusa or Lookup, got 9");
        Refused(new() { CustomDrafter = new Fixed([], levels: 2, ranks: 0) }, "CustomDrafter: expected 0 to 1023 levels and 1 to 1023 ranks, got 2 and 0");
        Refused(new() { Temperature = 1, Acceptance = Acceptance.Greedy }, "Acceptance: expected Lossless or Typical where the temperature is above 0, got Greedy");
        Refused(new() { TypicalThreshold = 0 }, "TypicalThreshold: expected a number in (0, 1], got 0");
        Refused(new() { TypicalAlpha = 0 }, "TypicalAlpha: expected a number above 0, got 0");
        Refused(new() { Processors = [null!] }, "Processors: expected processors, got null");
        Assert.Empty(batch.Sequences);
        Assert.StartsWith("PrefillChunk: expected 1 or more", Assert.Throws<ArgumentOutOfRangeException>(() => new DecodingBatch(model, new DecodingBatchOptions { PrefillChunk = 0 })).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => new DecodingBatch(model, new DecodingBatchOptions { Slots = 0 }));

        void Refused(GenerationOptions options, string message) =>
            Assert.StartsWith(message, Assert.Throws<ArgumentException>(() => batch.Add([1], options)).Message, StringComparison.Ordinal);
    }

    /// <summary>Knows no token from 11 on.</summary>
    private sealed class Partial : TextTokenizer
    {
        public override int VocabularySize => Vocabulary;

        public override int[] Encode(string text) => throw new NotSupportedException();

        public override ReadOnlyMemory<byte> Bytes(int token) => token < 11 ? new[] { (byte)('a' + token) } : throw new ArgumentException("no bytes from token 11 on");
    }
}
