using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Whatever is guessed, and whichever tree is tried: the text is that of one token at a time.</summary>
public class SpeculationTests
{
    private const int Vocabulary = 23;

    public static TheoryData<string, bool> Models => new(from name in BackendsUnderTest.LosslessNames from softmax in new[] { false, true } select (name, softmax));

    [Theory, MemberData(nameof(Models))]
    public void Trees_give_the_text_of_one_token_at_a_time(string backendName, bool softmax)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax);
        var random = new Random(11);
        for (int round = 0; round < (backendName == "oracle" ? 15 : 40); round++)
        {
            int[] prompt = Prompt(random);
            GenerationOptions options = Options(random);
            int[] want = OneAtATime.Generate(model, prompt, options);
            foreach (GenerationOptions speculative in Speculations(random, model, options))
                Assert.Equal(want, Generate(model, prompt, speculative));
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void A_drafter_that_knows_the_text_is_believed(string backendName, bool softmax)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax);
        int[] prompt = [3, 1, 4];
        foreach (float temperature in new[] { 0f, 1f })
        {
            var options = new GenerationOptions { MaxTokens = 60, Temperature = temperature, Seed = 5 };
            int[] want = OneAtATime.Generate(model, prompt, options);
            options = options with { CustomDrafter = new Oracular([.. prompt, .. want], levels: 4, ranks: 3, rightRank: 1, Vocabulary), TreePolicy = TreePolicy.Choices([[0], [1], [1, 0], [1, 1], [1, 1, 1], [2]]) };
            Assert.Equal(want, Generate(model, prompt, options, out DecodingStatistics seen));
            // 60 tokens: the prompt's step gives one, each other step its root's successor and three guesses.
            Assert.Equal(1 + 15, seen.SequenceSteps);
            Assert.Equal(60, seen.Tokens);
            Assert.Equal([15, 15, 14], seen.Accepted.ToArray());
        }
    }

    [Fact]
    public void Typical_acceptance_takes_more_and_repeats_itself()
    {
        using KernelBackend backend = BackendsUnderTest.Open("oracle");
        using var model = new ToyModel(backend, Vocabulary, sharpness: 0.5);
        var options = new GenerationOptions { MaxTokens = 80, Temperature = 1, Seed = 3, Acceptance = Acceptance.Typical, Drafter = Drafter.Medusa, TypicalThreshold = 0.02f };
        int[] text = Generate(model, [1, 2, 3], options, out DecodingStatistics typical);
        Assert.Equal(text, Generate(model, [1, 2, 3], options));
        Generate(model, [1, 2, 3], options with { Acceptance = null, TreePolicy = TreePolicy.Choices(TreePolicy.Medusa63.List![..15]) }, out DecodingStatistics lossless);
        Assert.True(typical.TokensPerStep > lossless.TokensPerStep, $"typical {typical.TokensPerStep}, lossless {lossless.TokensPerStep}");
        // At temperature 0 it is greedy.
        GenerationOptions cold = options with { Temperature = 0 };
        Assert.Equal(OneAtATime.Generate(model, [1, 2, 3], cold), Generate(model, [1, 2, 3], cold));
    }

    [Fact]
    public void Guesses_outside_the_vocabulary_do_no_harm()
    {
        using KernelBackend backend = BackendsUnderTest.Open("oracle");
        using var model = new ToyModel(backend, Vocabulary);
        var options = new GenerationOptions { MaxTokens = 20, CustomDrafter = new Fixed([5, 1000, -7, 6, int.MaxValue, 2], levels: 2, ranks: 3), TreePolicy = TreePolicy.Choices([[0], [1], [2], [0, 1], [1, 0]]) };
        Assert.Equal(OneAtATime.Generate(model, [1], options), Generate(model, [1], options));
    }

    internal static int[] Prompt(Random random)
    {
        var prompt = new int[random.Next(1, 70)];
        int period = random.Next(2, 9);
        for (int i = 0; i < prompt.Length; i++) prompt[i] = i >= period && random.Chance(0.8) ? prompt[i - period] : random.Next(Vocabulary);
        return prompt;
    }

    internal static GenerationOptions Options(Random random) => new()
    {
        MaxTokens = random.Next(1, 50),
        Temperature = random.Pick(0f, 0f, 0.3f, 0.7f, 1f, 1.6f),
        TopK = random.Pick(0, 0, 1, 5, 12),
        TopP = random.Pick(1f, 1f, 0.9f, 0.5f),
        MinP = random.Pick(0f, 0f, 0.05f, 0.3f),
        RepetitionPenalty = random.Pick(1f, 1f, 1.3f, 0.8f),
        Seed = (ulong)random.NextInt64(),
        Processors = random.Chance(0.3) ? [new NoTriples()] : [],
        StopTokens = random.Chance(0.3) ? [random.Next(Vocabulary), random.Next(Vocabulary)] : [],
    };

    internal static int[] Generate(CausalModel model, int[] prompt, GenerationOptions options) => Generate(model, prompt, options, out _);

    internal static int[] Generate(CausalModel model, int[] prompt, GenerationOptions options, out DecodingStatistics statistics)
    {
        DecodingStatistics? seen = null;
        int[] tokens = [.. model.GenerateTokens(prompt, options, all => seen = all, TestContext.Current.CancellationToken).Select(token => token.Token)];
        statistics = seen!;
        return tokens;
    }

    private static IEnumerable<GenerationOptions> Speculations(Random random, CausalModel model, GenerationOptions options)
    {
        yield return options;
        TreePolicy policy = random.Pick(TreePolicy.Auto, TreePolicy.Medusa63, TreePolicy.Chain(random.Next(0, 6)), TreePolicy.Choices([[0], [3], [0, 2], [3, 1], [3, 1, 0], [9]]));
        yield return options with { Drafter = Drafter.Medusa, TreePolicy = policy };
        yield return options with { Drafter = Drafter.Lookup, TreePolicy = random.Pick(TreePolicy.Auto, TreePolicy.Chain(random.Next(0, 30))) };
        int ranks = random.Next(1, 5);
        yield return options with { CustomDrafter = new Noise(random.Next(), levels: random.Next(1, 25), ranks, model.VocabularySize), TreePolicy = random.Pick(TreePolicy.Auto, TreePolicy.Medusa63, TreePolicy.Chain(20)) };
    }
}
