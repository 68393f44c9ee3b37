using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

public class SampleTests
{
    private static readonly ElementType[] Types = [ElementType.Float32, ElementType.BFloat16, ElementType.Float16];

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants)];

    [Theory, MemberData(nameof(Names))]
    public void Draws_what_the_oracle_draws(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var random = new Random(5);
        foreach (int vocabulary in new[] { 1, 2, 17, 331, 1003 })
        {
            const int Count = 60;
            var logits = Argument.Random(vocabulary, random.Pick(Types), vocabulary % 3, Count, vocabulary);
            logits = logits with { Numbers = Array.ConvertAll(logits.Numbers, x => random.Chance(0.1) ? float.NegativeInfinity : 3 * x) };
            for (int r = 0; r < Count; r++) logits.Numbers[r * vocabulary + random.Next(vocabulary)] = random.NextSingle();
            SamplingRow[] rows = [.. Enumerable.Range(0, Count).Select(i => new SamplingRow((ulong)random.NextInt64(), i, random.Pick(0, 0.3f, 1, 2.5f),
                TopK: random.Pick(0, 0, 1, 5, 40, 5000), TopP: random.Pick(1, 1, 0.9f, 0.5f, 0.01f), MinP: random.Pick(0, 0, 0.05f, 0.5f, 1)))];
            Assert.Equal(Draw(oracle, logits, rows), Draw(rig, logits, rows));
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void A_row_draws_the_same_token_by_itself(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var logits = Argument.Random(3, ElementType.Float32, 0, 40, 500);
        SamplingRow[] rows = [.. Enumerable.Range(0, 40).Select(i => new SamplingRow(11, i, 1.5f, TopK: i % 3 * 20, TopP: i % 2 == 0 ? 1 : 0.8f))];
        int[] all = Draw(rig, logits, rows);
        for (int i = 0; i < 40; i += 3) Assert.Equal([all[i]], Draw(rig, logits.Rows(i, i + 1), rows[i..(i + 1)]));
    }

    // 16 tokens, one of them impossible; 40,000 draws; chi-squared with 14 degrees of freedom passes 42 once in 10,000 times, and the seeds are fixed.
    [Theory, MemberData(nameof(Names))]
    public void Draws_are_distributed_as_the_probabilities_say(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        const int Vocabulary = 16, Draws = 40_000, AtOnce = 2_000;
        const float Temperature = 1.3f;
        float[] row = new Random(8).Floats(Vocabulary);
        row[5] = float.NegativeInfinity;
        var logits = new Argument([AtOnce, Vocabulary], [.. Enumerable.Range(0, AtOnce).SelectMany(_ => row)]);
        var seen = new int[Vocabulary];
        for (int start = 0; start < Draws; start += AtOnce)
        {
            SamplingRow[] rows = [.. Enumerable.Range(start, AtOnce).Select(i => new SamplingRow((ulong)(i / 1000), i % 1000, Temperature))];
            foreach (int token in Draw(rig, logits, rows)) seen[token]++;
        }

        Assert.Equal(0, seen[5]);
        double total = row.Sum(x => Math.Exp(x / Temperature)), chiSquared = 0;
        for (int i = 0; i < Vocabulary; i++)
        {
            double expected = Draws * Math.Exp(row[i] / Temperature) / total;
            if (i != 5) chiSquared += Math.Pow(seen[i] - expected, 2) / expected;
        }

        Assert.True(chiSquared < 42, $"chi-squared {chiSquared}");
    }

    [Theory, MemberData(nameof(Names))]
    public void Top_k_top_p_and_min_p_keep_what_they_say(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        // Probabilities 0.1, 0.4, 0.1, 0.25, 0.15.
        float[] row = [MathF.Log(0.1f), MathF.Log(0.4f), MathF.Log(0.1f), MathF.Log(0.25f), MathF.Log(0.15f)];
        (SamplingRow How, int[] Kept)[] cases =
        [
            (new(0, 0, 1), [0, 1, 2, 3, 4]),
            (new(0, 0, 1, TopK: 2), [1, 3]),
            (new(0, 0, 1, TopK: 4), [0, 1, 3, 4]),          // the lower id of two equals
            (new(0, 0, 1, TopP: 0.6f), [1, 3]),
            (new(0, 0, 1, TopP: 0.3f), [1]),
            (new(0, 0, 1, TopK: 3, TopP: 0.55f), [1, 3]),   // 0.5 and 0.3125 of what top-k has left
            (new(0, 0, 1, MinP: 0.3f), [1, 3, 4]),
            (new(0, 0, 1, MinP: 1), [1]),
            (new(0, 0, 0.5f, MinP: 0.3f), [1, 3]),          // the temperature comes first
        ];
        const int Draws = 300;
        var logits = new Argument([Draws, 5], [.. Enumerable.Range(0, Draws).SelectMany(_ => row)]);
        foreach ((SamplingRow how, int[] kept) in cases)
        {
            SamplingRow[] rows = [.. Enumerable.Range(0, Draws).Select(i => how with { Seed = 77, Position = i })];
            Assert.Equal(kept, Draw(rig, logits, rows).Distinct().Order());
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Logits_that_cannot_be_drawn_from_are_refused_before_anything_is_written(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        float masked = float.NegativeInfinity;
        foreach (float temperature in new[] { 0, 1f })
        {
            foreach ((float[] row, string why) in new[]
            {
                ([1, float.NaN, 2], "has NaN"), ([1, float.PositiveInfinity, 2], "has +infinity"), (new[] { masked, masked, masked }, "has no finite number"),
            })
            {
                DeviceTensor tokens = rig.IntegerOutput(3);
                DeviceTensor logits = rig.Upload(new Argument([3, 3], [1, 2, 3, masked, 5, masked, .. row]));
                SamplingRow[] rows = [.. Enumerable.Repeat(new SamplingRow(1, 2, temperature), 3)];
                var refused = Assert.Throws<ArgumentException>(() => rig.Backend.Sample(logits, rows, tokens));
                Assert.Equal($"logits: row 2 {why} (Parameter 'logits')", refused.Message);
                Assert.Equal([-99, -99, -99], rig.ReadIntegers(tokens));
            }
        }
    }

    private static int[] Draw(OpRig rig, Argument logits, SamplingRow[] rows)
    {
        DeviceTensor tokens = rig.IntegerOutput(rows.Length);
        rig.Backend.Sample(rig.Upload(logits), rows, tokens);
        return rig.ReadIntegers(tokens);
    }
}
