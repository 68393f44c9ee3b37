using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>The model that comes with the library: its recorded text, and the same text through every tree.</summary>
public class ShippedModelTests
{
    private const double Fair = 1e-3;                       // margin of two logits under which another rounding may choose the other token

    private static readonly string[] Prompts =
    [
        "To be, or not to be", "ROMEO:\nBut soft, what light", "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.", "\n",
        "KING RICHARD III:\nNow is the winter of our discontent\nMade glorious summer by this sun of York;",
    ];

    private const string Speech = """
        HAMLET:
        To be, or not to be, that is the question:
        Whether 'tis nobler in the mind to suffer
        The slings and arrows of outrageous fortune,
        Or to take arms against a sea of troubles
        And by opposing end them. To die: to sleep;
        No more; and by a sleep to say we end
        The heart-ache and the thousand natural shocks
        That flesh is heir to, 'tis a consummation
        Devoutly to be wish'd. To die, to sleep;
        To sleep: perchance to dream: ay, there's the rub;
        For in that sleep of death what dreams may come
        When we have shuffled off this mortal coil,
        Must give us pause: there's the respect
        That makes calamity of so long life;
        For who would bear the whips and scorns of time,
        The oppressor's wrong, the proud man's contumely,
        The pangs of despised love, the law's delay,
        The insolence of office and the spurns
        That patient merit of the unworthy takes,
        When he himself might his quietus make
        With a bare bodkin? who would fardels bear,
        To grunt and sweat under a weary life,
        But that the dread of something after death,
        The undiscover'd country from whose bourn
        No traveller returns, puzzles the will
        And makes us rather bear those ills we have
        Than fly to others that we know not of?
        Thus conscience does make cowards of us all;
        And thus the native hue of resolution
        Is sicklied o'er with the pale cast of thought,
        And enterprises of great pith and moment
        With this regard their currents turn awry,
        And lose the name of action.

        """;

    /// <summary>Which prompt.</summary>
    public static TheoryData<int> Each => [.. Enumerable.Range(0, Prompts.Length)];

    private static string Folder => Path.Combine(Golden.Repository, "models", "shakespeare-2m");

    private static GenerationOptions[] Speculations =>
    [
        new() { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 },
        new() { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Auto },
        new() { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Chain(4) },
        new() { Drafter = Drafter.Lookup, TreePolicy = TreePolicy.Auto },
        new() { Drafter = Drafter.Lookup, TreePolicy = TreePolicy.Chain(10) },
    ];

    private static GenerationOptions[] Samplings =>
    [
        new() { Temperature = 1, Seed = 1 }, new() { Temperature = 0.7f, TopP = 0.9f, Seed = 2 }, new() { Temperature = 1.3f, TopK = 40, MinP = 0.02f, RepetitionPenalty = 1.1f, Seed = 3 },
    ];

    [Fact]
    public void Trees_write_the_text_of_one_token_at_a_time() => TreesWriteTheSame(100, Prompts[..1], [Speculations[0], Speculations[1], Speculations[3]]);

    [Theory, MemberData(nameof(Each)), Trait("tier", "full")]
    public void Trees_write_the_same_thousands_of_tokens(int prompt) => TreesWriteTheSame(1000, Prompts[prompt..(prompt + 1)], Speculations[..4]);

    [Fact]
    public void Sampled_trees_write_the_text_of_one_token_at_a_time() => SampledTreesWriteTheSame(30, Prompts[1..2], Speculations[..1]);

    [Theory, MemberData(nameof(Each)), Trait("tier", "full")]
    public void Sampled_trees_write_the_same_thousands_of_tokens(int prompt) => SampledTreesWriteTheSame(150, Prompts[prompt..(prompt + 1)], Speculations[..4]);

    [Fact]
    public void The_recorded_text_is_written() => WritesTheRecordedText(150, new() { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 });

    [Fact, Trait("tier", "full")]
    public void The_recorded_text_is_written_one_token_at_a_time() => WritesTheRecordedText(400, new());

    [Fact]
    public void Statistics_add_up()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using CausalModel model = CausalModel.Load(Folder, backend);
        foreach (GenerationOptions how in Speculations.Append(new GenerationOptions()))
        {
            long before = model.Forwards;
            int[] prompt = model.Tokenizer!.Encode(Prompts[2]);
            // The stop token comes in the middle of a path as likely as at its end.
            int[] text = SpeculationTests.Generate(model, prompt, how with { MaxTokens = 61, StopTokens = [.. model.Tokenizer.Encode(".")] }, out DecodingStatistics seen);
            Assert.Equal(text.Length, seen.Tokens);
            Assert.Equal(model.Forwards - before, seen.Forwards);
            Assert.Equal(seen.Forwards, seen.SequenceSteps);
            Assert.Equal(prompt.Length, seen.PromptTokens);
            Assert.Equal(seen.SequenceSteps, seen.TreeSizes.ToArray().Sum());
            Assert.Equal(seen.Tokens, seen.SequenceSteps + seen.Accepted.ToArray().Sum());
            Assert.Equal((double)seen.Tokens / seen.SequenceSteps, seen.TokensPerStep);
            Assert.Equal(seen.Tried.Length, seen.Accepted.Length);
            for (int depth = 0; depth < seen.Tried.Length; depth++)
            {
                Assert.True(seen.Accepted[depth] <= seen.Tried[depth]);
                if (depth > 0) Assert.True(seen.Tried[depth] <= seen.Accepted[depth - 1]);
            }

            Assert.Equal(seen.TotalTime, seen.PrefillTime + seen.DraftTime + seen.ForwardTime + seen.SelectTime + seen.CommitTime);
            Assert.All(new[] { seen.PrefillTime, seen.ForwardTime, seen.SelectTime }, time => Assert.True(time > TimeSpan.Zero));
            // Without a drafter there is nothing to draft and nothing to commit: a clock may not see it.
            if (how.Drafter != Drafter.None) Assert.All(new[] { seen.DraftTime, seen.CommitTime }, time => Assert.True(time > TimeSpan.Zero));
        }
    }

    [Fact]
    public void Perplexity_is_the_sum_of_the_log_probabilities()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread"), oracle = BackendsUnderTest.Open("oracle");
        using CausalModel model = CausalModel.Load(Folder, backend), exact = CausalModel.Load(Folder, oracle);
        int[] text = model.Tokenizer!.Encode(Prompts[2]);
        using AttentionState state = exact.CreateState(1, text.Length);
        var step = new Step();
        step.Advance(0, text.Length, LogitRows.All);
        double[] logits = Close.Widen(oracle.Download<float>(exact.Forward(state, step, text).Logits));
        double nats = 0;
        for (int i = 0; i + 1 < text.Length; i++)
        {
            double[] row = logits[(i * model.VocabularySize)..((i + 1) * model.VocabularySize)];
            nats += Math.Log(row.Sum(Math.Exp)) - row[text[i + 1]];
        }

        PerplexityResult got = Perplexity.Compute(model, text, cancellation: TestContext.Current.CancellationToken);
        Close.To([nats], [got.Nats], Close.Logits);
        Assert.InRange(got.Value, 2, 60);
        foreach (int chunk in new[] { 1, 13 }) Assert.Equal(got, Perplexity.Compute(model, text, chunk, cancellation: TestContext.Current.CancellationToken));
    }

    [Fact]
    public void Narrow_weights_predict_nearly_as_well()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        double wide = Value(WeightForm.Float32), bits8 = Value(WeightForm.Int8), bits4 = Value(WeightForm.Int4);
        Assert.InRange(bits8, wide * 0.99, wide * 1.01);
        Assert.InRange(bits4, wide * 0.95, wide * 1.05);
        Assert.Equal(3, new[] { wide, bits8, bits4 }.Distinct().Count());

        double Value(WeightForm form)
        {
            using CausalModel model = CausalModel.Load(Folder, backend, new LoadOptions { WeightForm = form });
            return Perplexity.Compute(model, model.Tokenizer!.Encode(Speech), cancellation: TestContext.Current.CancellationToken).Value;
        }
    }

    [Fact]
    public void A_step_allocates_nothing()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using CausalModel model = CausalModel.Load(Folder, backend);
        foreach (GenerationOptions how in new GenerationOptions[] { new(), new() { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Choices([[0], [1], [0, 0]]) }, new() { Temperature = 1, TopP = 0.9f } })
        {
            using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 1 });
            batch.Add(Prompts[0], how with { MaxTokens = 20_000, StopTokens = [] });
            Allocations.RequireNone(() => Assert.True(batch.Step(TestContext.Current.CancellationToken)));
        }
    }

    private static void WritesTheRecordedText(int most, GenerationOptions how)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using CausalModel model = CausalModel.Load(Folder, backend);
        using SafetensorsFile recorded = SafetensorsFile.Open(Path.Combine(Folder, "recorded.safetensors"));
        int[] want = recorded["greedy"].ToInt32();
        float[] margins = recorded["greedy_margin"].ToFloat32();
        int sure = Array.FindIndex(margins, margin => margin < Fair) is var close and >= 0 ? close : want.Length;
        Assert.True(sure > 150, $"the text is sure up to token {sure}");
        sure = Math.Min(sure, most);
        Assert.Equal(want[..sure], SpeculationTests.Generate(model, recorded["prompt"].ToInt32(), how with { MaxTokens = sure }));
    }

    private static void TreesWriteTheSame(int tokens, string[] prompts, GenerationOptions[] speculations)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using CausalModel model = CausalModel.Load(Folder, backend);
        foreach (string prompt in prompts)
        {
            int[] ids = model.Tokenizer!.Encode(prompt);
            int[] want = OneAtATime.Generate(model, ids, new() { MaxTokens = tokens });
            foreach (GenerationOptions how in speculations)
            {
                Assert.Equal(want, SpeculationTests.Generate(model, ids, how with { MaxTokens = tokens }, out DecodingStatistics seen));
                if (how.Drafter == Drafter.Medusa && how.TreePolicy != TreePolicy.Auto) Assert.True(seen.TokensPerStep > 1.5, $"{how.TreePolicy}: {seen.TokensPerStep} tokens a step");
            }
        }
    }

    private static void SampledTreesWriteTheSame(int tokens, string[] prompts, GenerationOptions[] speculations)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using CausalModel model = CausalModel.Load(Folder, backend);
        foreach (string prompt in prompts)
        {
            int[] ids = model.Tokenizer!.Encode(prompt);
            foreach (GenerationOptions sampling in Samplings)
            {
                int[] want = OneAtATime.Generate(model, ids, sampling with { MaxTokens = tokens });
                foreach (GenerationOptions how in speculations)
                    Assert.Equal(want, SpeculationTests.Generate(model, ids, sampling with { MaxTokens = tokens, Drafter = how.Drafter, TreePolicy = how.TreePolicy }));
            }
        }
    }
}
