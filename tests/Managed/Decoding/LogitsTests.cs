using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>What is done with logits: log-probabilities, processors on branches, rows that are not numbers.</summary>
public class LogitsTests
{
    private const int Vocabulary = 23;

    [Theory, InlineData("cpu"), InlineData("oracle")]
    public void Log_probabilities_are_the_models_own(string backendName)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName), oracle = BackendsUnderTest.Open("oracle");
        using var model = new ToyModel(backend, Vocabulary);
        using var exact = new ToyModel(oracle, Vocabulary);
        var random = new Random(2);
        foreach (Drafter drafter in Enum.GetValues<Drafter>())
        {
            int[] prompt = SpeculationTests.Prompt(random);
            // Whatever changes what is drawn does not change what the model thinks of it.
            var options = new GenerationOptions
            {
                MaxTokens = 40,
                Temperature = 0.8f,
                TopP = 0.9f,
                RepetitionPenalty = 1.2f,
                Processors = [new NoTriples()],
                Seed = 4,
                Drafter = drafter,
                LogProbabilities = true,
            };
            GeneratedToken[] got = [.. model.GenerateTokens(prompt, options, cancellation: TestContext.Current.CancellationToken)];
            double[] want = LogProbabilities(exact, [.. prompt, .. got.Select(token => token.Token)], prompt.Length);
            Close.To(want, [.. got.Select(token => (double)token.LogProbability!.Value)], 2e-5);
            Assert.All(model.GenerateTokens(prompt, options with { LogProbabilities = false }, cancellation: TestContext.Current.CancellationToken), token => Assert.Null(token.LogProbability));
        }
    }

    [Fact]
    public void A_fork_that_asks_for_log_probabilities_has_them_from_there_on()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        var options = new GenerationOptions { MaxTokens = 30, Drafter = Drafter.Medusa };
        Sequence plain = batch.Add([1, 2], options);
        for (int i = 0; i < 5; i++) batch.Step(TestContext.Current.CancellationToken);
        int known = plain.Generated.Length;
        Sequence asks = plain.Fork(options with { LogProbabilities = true });
        batch.Run(TestContext.Current.CancellationToken);
        Assert.True(plain.LogProbabilities.IsEmpty);
        Assert.Equal(plain.Generated.ToArray(), asks.Generated.ToArray());
        Assert.All(asks.LogProbabilities[..known].ToArray(), number => Assert.True(float.IsNaN(number)));
        Close.To(LogProbabilities(model, asks.Tokens.ToArray(), 2 + known), Close.Widen(asks.LogProbabilities[known..]), 2e-5);
    }

    [Fact]
    public void Processors_see_each_nodes_own_path()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        int[][] choices = [[0], [1], [0, 0], [1, 0], [1, 1], [1, 1, 0], [2]];
        int[] guesses = [7, 8, 9, 10, 11, 12, 13, 14, 15];  // ranks 0..2 of levels 0..2
        List<int[]> seen = [];
        var options = new GenerationOptions
        {
            MaxTokens = 30,
            CustomDrafter = new Fixed(guesses, levels: 3, ranks: 3),
            TreePolicy = TreePolicy.Choices(choices),
            Processors = [new Custom((path, _) => seen.Add(path.ToArray()))],
        };
        Sequence sequence = batch.Add([1, 2, 3], options), other = batch.Add([4], options with { Processors = [] });
        batch.Step(TestContext.Current.CancellationToken);
        Assert.Equal([1, 2, 3], Assert.Single(seen));
        for (int step = 0; step < 5; step++)
        {
            seen.Clear();
            int[] text = sequence.Tokens.ToArray();
            batch.Step(TestContext.Current.CancellationToken);
            int[][] want =
            [
                [], [7], [8], [9], [7, 10], [8, 10], [8, 11], [8, 11, 13],
            ];
            Assert.Equal(want.Select(path => (int[])[.. text, .. path]), seen);
        }

        Assert.False(other.IsFinished);
    }

    [Theory, InlineData(0f), InlineData(1f)]
    public void A_grammar_holds_on_branches(float temperature)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        var options = new GenerationOptions { MaxTokens = 80, Temperature = temperature, Seed = 6, Processors = [new Grammar()], RepetitionPenalty = 1.5f };
        int[] want = OneAtATime.Generate(model, [1], options);
        for (int i = 1; i < want.Length; i++) Assert.True(Grammar.Allows(want[i - 1], want[i], Vocabulary));
        // This drafter is often right: of three tokens that may follow it guesses two.
        foreach (GenerationOptions speculative in new[]
        {
            options with { CustomDrafter = new Follower(), TreePolicy = TreePolicy.Medusa63 },
            options with { CustomDrafter = new Follower(), TreePolicy = TreePolicy.Auto },
            options with { Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 },
            options with { Drafter = Drafter.Lookup, TreePolicy = TreePolicy.Chain(6) },
        }) Assert.Equal(want, SpeculationTests.Generate(model, [1], speculative));
    }

    [Fact]
    public void A_penalty_counts_a_token_once()
    {
        float[] logits = [1, 2, -3, 4, 0];
        new RepetitionPenalty(2).Process([3, 2, 3, 3, 0], logits);
        Assert.Equal([0.5f, 2, -6, 2, 0], logits);
        Assert.Throws<ArgumentOutOfRangeException>(() => new RepetitionPenalty(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new RepetitionPenalty(float.NaN));
    }

    [Theory, InlineData(0f, null), InlineData(1f, null), InlineData(1f, Acceptance.Typical), InlineData(0f, Acceptance.Typical)]
    public void Rows_that_are_not_numbers_end_only_the_text_that_comes_to_them(float temperature, Acceptance? acceptance)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        var options = new GenerationOptions { MaxTokens = 30, Temperature = temperature, Seed = 1, Acceptance = acceptance, Drafter = Drafter.Medusa, TreePolicy = TreePolicy.Medusa63 };
        const int Bad = 17;
        // Its own text never comes to the token, but its trees do; the other one's begins with it.
        var avoids = new Custom((_, logits) => logits[Bad] = float.NegativeInfinity);
        GenerationOptions good = options with { Processors = [avoids] };
        int[] want = SpeculationTests.Generate(model, [1, 2], good);
        using var batch = new DecodingBatch(model);
        model.PoisonAfter = Bad;
        Sequence healthy = batch.Add([1, 2], good), ill = batch.Add([3, 4, Bad], options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(FinishReason.Failed, ill.FinishReason);
        Assert.Equal("no token can be chosen for position 3: logits: row 0 has NaN (Parameter 'logits')", Assert.IsType<NotFiniteNumberException>(ill.Error).Message);
        Assert.Equal(want, healthy.Generated.ToArray());
        Assert.Throws<NotFiniteNumberException>(() => SpeculationTests.Generate(model, [Bad], options));
    }

    [Theory, InlineData(float.PositiveInfinity, "has +infinity"), InlineData(float.NegativeInfinity, "has no finite number"), InlineData(float.NaN, "has NaN")]
    public void Infinite_logits_have_the_same_error(float number, string what)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var batch = new DecodingBatch(model);
        foreach (float temperature in new[] { 0f, 1f })
        {
            using Sequence sequence = batch.Add([1], new() { Temperature = temperature, Processors = [new Custom((path, logits) => { if (path.Length == 6) logits.Fill(number); })] });
            batch.Run(TestContext.Current.CancellationToken);
            Assert.Equal(6, sequence.Count);
            Assert.Contains(what, Assert.IsType<NotFiniteNumberException>(sequence.Error).Message, StringComparison.Ordinal);
        }
    }

    /// <summary>log softmax of the model's logits for each token from a place on, in float64.</summary>
    private static double[] LogProbabilities(ToyModel model, int[] tokens, int from)
    {
        using AttentionState state = model.CreateState(1, tokens.Length);
        var step = new Step();
        step.Advance(0, tokens.Length, LogitRows.All);
        double[] logits = Close.Widen(model.Backend.Download<float>(model.Forward(state, step, tokens).Logits));
        return [.. Enumerable.Range(from, tokens.Length - from).Select(i =>
        {
            ReadOnlySpan<double> row = logits.AsSpan((i - 1) * Vocabulary, Vocabulary);
            double total = 0;
            foreach (double x in row) total += Math.Exp(x);
            return row[tokens[i]] - Math.Log(total);
        })];
    }

    /// <summary>Guesses what the grammar allows, along one chain.</summary>
    private sealed class Follower : IDrafter
    {
        public int Levels => 4;

        public int Ranks => 2;

        public void Draft(Sequence sequence, Span<int> guesses)
        {
            int last = sequence.Tokens[^1];
            for (int level = 0; level < Levels; level++)
            {
                guesses[2 * level] = (last + level + 1) % Vocabulary;
                guesses[2 * level + 1] = (last + level + 2) % Vocabulary;
            }
        }
    }
}
