using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Tokens drawn through trees have the target's own distribution; samplers that are nearly right are found out by the same test.</summary>
public class DistributionTests
{
    private const int Vocabulary = 6;
    private const int Draws = 5000;
    private const int First = 2;                            // the token that every text begins with
    private static readonly int[] Prompt = [0, 1, 2, 3, 0, 1, 2, 4, 0, 1];

    public static TheoryData<Drafter, string> Trees => new()
    {
        { Drafter.None, "auto" }, { Drafter.Medusa, "medusa63" }, { Drafter.Medusa, "auto" }, { Drafter.Medusa, "chain:2" }, { Drafter.Medusa, "[[0],[1],[0,0],[0,1],[1,0]]" }, { Drafter.Lookup, "chain:4" },
    };

    [Theory, MemberData(nameof(Trees))]
    public void Draws_have_the_targets_distribution(Drafter drafter, string tree)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using var model = new ToyModel(backend, Vocabulary, sharpness: 1);
        foreach (GenerationOptions how in new GenerationOptions[] { new() { Temperature = 1 }, new() { Temperature = 0.8f, TopK = 5, TopP = 0.9f, MinP = 0.05f } })
        {
            GenerationOptions options = how with { Drafter = drafter, TreePolicy = TreePolicy.Parse(tree), MaxTokens = 3, Processors = [new Script(Prompt.Length, First)] };
            double[] pairs = Pairs(model, options);
            long[] counts = Count(model, options, out DecodingStatistics seen);
            Assert.True(ChiSquared.Ratio(counts, pairs) < 1, $"pairs: {ChiSquared.Ratio(counts, pairs)} of the critical value");
            Assert.True(ChiSquared.Ratio(Firsts(counts), Firsts(pairs)) < 1, "first tokens");
            Assert.True(ChiSquared.Ratio(Seconds(counts), Seconds(pairs)) < 1, "second tokens");
            // Measuring may find that no tree pays, and with some tokens left out a lookup may never hit.
            if (drafter == Drafter.Medusa && tree != "auto") Assert.True(seen.Accepted[0] > Draws / 20, "guesses were accepted too");
        }
    }

    [Fact]
    public void One_long_text_has_it_too()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using var model = new ToyModel(backend, Vocabulary);
        // The same distribution after every path: then successive tokens are independent draws.
        float[] logits = [0.3f, -1, 1.2f, 0, -0.5f, 0.6f];
        double[] single = Processed(logits, new() { Temperature = 1 });
        double[] pairs = [.. from a in single from b in single select a * b];
        foreach (ulong seed in new ulong[] { 0, 1, ulong.MaxValue })
        {
            var options = new GenerationOptions
            {
                MaxTokens = 8000,
                Temperature = 1,
                Seed = seed,
                Drafter = Drafter.Medusa,
                TreePolicy = TreePolicy.Medusa63,
                Processors = [new Custom((_, row) => logits.CopyTo(row))],
            };
            int[] text = SpeculationTests.Generate(model, [1], options);
            var counts = new long[Vocabulary * Vocabulary];
            for (int i = 0; i + 1 < text.Length; i += 2) counts[text[i] * Vocabulary + text[i + 1]]++;
            Assert.True(ChiSquared.Ratio(counts, pairs) < 1);
            Assert.True(ChiSquared.Ratio([.. Enumerable.Range(0, Vocabulary).Select(token => (long)text.Count(t => t == token))], single) < 1);
        }
    }

    [Fact]
    public void Biased_samplers_are_found_out()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu/1 thread");
        using var model = new ToyModel(backend, Vocabulary, sharpness: 1);
        double[] pairs = Pairs(model, new() { Temperature = 1 });
        Assert.True(Ratio(Draw) < 1, "the honest one is not");
        Assert.True(Ratio(RejectDeterministicCandidates) > 2);
        Assert.True(Ratio(TakeTheFirstChild) > 2);

        double Ratio(Func<double[], Random, int> sampler)
        {
            var random = new Random(3);
            var counts = new long[pairs.Length];
            double[] first = Firsts(pairs);
            for (int i = 0; i < Draws; i++)
            {
                int a = sampler(first, random);
                double[] second = [.. pairs[(a * Vocabulary)..((a + 1) * Vocabulary)].Select(p => p / first[a])];
                counts[a * Vocabulary + sampler(second, random)]++;
            }

            return ChiSquared.Ratio(counts, pairs);
        }
    }

    /// <summary>The target's own draw.</summary>
    private static int Draw(double[] p, Random random)
    {
        double at = random.NextDouble() * p.Sum();
        int token = 0;
        for (double passed = p[0]; passed <= at && token < p.Length - 1; passed += p[token]) token++;
        return token;
    }

    /// <summary>Multi-candidate rejection (SpecInfer) as if the head's two best guesses had been drawn from the head's distribution: right only for guesses that were.</summary>
    private static int RejectDeterministicCandidates(double[] p, Random random)
    {
        double[] q = [0.25, 0.3, 0.15, 0.12, 0.1, 0.08], left = [.. p];
        foreach (int candidate in new[] { 1, 0 })
        {
            if (random.NextDouble() < left[candidate] / q[candidate]) return candidate;
            left = [.. left.Select((x, i) => Math.Max(0, x - q[i]))];
            double mass = left.Sum();
            left = [.. left.Select(x => x / mass)];
        }

        return Draw(left, random);
    }

    /// <summary>Goes down into the first child wherever the draw hits any child.</summary>
    private static int TakeTheFirstChild(double[] p, Random random) => Draw(p, random) is var token && token < 2 ? 0 : token;

    /// <summary>How often each pair of tokens followed the first one, over as many seeds as there are draws.</summary>
    private static long[] Count(ToyModel model, GenerationOptions options, out DecodingStatistics statistics)
    {
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 40, PrefillChunk = 1000 });
        var counts = new long[Vocabulary * Vocabulary];
        for (int seed = 0; seed < Draws;)
        {
            while (batch.FreeSlots > 0) batch.Add(Prompt, options with { Seed = (ulong)seed++ });
            batch.Run(TestContext.Current.CancellationToken);
            foreach (Sequence sequence in batch.Sequences.ToArray())
            {
                Assert.Equal(First, sequence.Generated[0]);
                counts[sequence.Generated[1] * Vocabulary + sequence.Generated[2]]++;
                sequence.Dispose();
            }
        }

        statistics = batch.Statistics;
        return counts;
    }

    /// <summary>The target's probability of each pair of tokens after the first one.</summary>
    private static double[] Pairs(ToyModel model, GenerationOptions options)
    {
        double[] first = Processed(Logits(model, [.. Prompt, First]), options);
        return [.. Enumerable.Range(0, Vocabulary).SelectMany(a => Processed(Logits(model, [.. Prompt, First, a]), options).Select(p => first[a] * p))];
    }

    private static float[] Logits(ToyModel model, int[] path)
    {
        using AttentionState state = model.CreateState(1, path.Length);
        var step = new Step();
        step.Advance(0, path.Length);
        return model.Backend.Download<float>(model.Forward(state, step, path).Logits);
    }

    /// <summary>docs/decoding.md, "From logits to a token", in float64.</summary>
    private static double[] Processed(float[] logits, GenerationOptions options)
    {
        double[] weights = [.. logits.Select(x => Math.Exp(x / (double)options.Temperature))];
        int[] order = [.. Enumerable.Range(0, weights.Length).OrderByDescending(token => weights[token])];
        int keep = options.TopK > 0 ? options.TopK : order.Length;
        double total = order.Take(keep).Sum(token => weights[token]), reached = 0;
        int fewest = 0;
        while (fewest < keep && reached < options.TopP * total) reached += weights[order[fewest++]];
        int[] kept = [.. order.Take(fewest).Where(token => weights[token] >= options.MinP * weights[order[0]])];
        double mass = kept.Sum(token => weights[token]);
        return [.. weights.Select((weight, token) => kept.Contains(token) ? weight / mass : 0)];
    }

    private static T[] Firsts<T>(T[] pairs) where T : System.Numerics.INumber<T> => Sums(pairs, (a, b) => a * Vocabulary + b);

    private static T[] Seconds<T>(T[] pairs) where T : System.Numerics.INumber<T> => Sums(pairs, (b, a) => a * Vocabulary + b);

    private static T[] Sums<T>(T[] pairs, Func<int, int, int> index) where T : System.Numerics.INumber<T> =>
        [.. Enumerable.Range(0, Vocabulary).Select(outer => Enumerable.Range(0, Vocabulary).Aggregate(T.Zero, (sum, inner) => sum + pairs[index(outer, inner)]))];
}
