using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Argmax, top-k, log-probabilities: what is read from rows of logits.</summary>
public class SelectTests
{
    private static readonly ElementType[] Types = [ElementType.Float32, ElementType.BFloat16, ElementType.Float16];

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants)];

    [Theory, MemberData(nameof(Names))]
    public void ArgMax_takes_the_lowest_of_equals(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        float nan = float.NaN, infinity = float.PositiveInfinity;
        (float[] Row, int Want)[] cases =
        [
            ([5], 0), ([1, 3, 3, 2], 1), ([-0f, 0f], 0), ([0f, -0f], 0), ([-infinity, -infinity], 0), ([-1, infinity, infinity], 1),
            ([9, nan, 10, nan], 1), ([nan], 0), ([infinity, nan], 1),
            ([.. Enumerable.Repeat(-4f, 40), 2, .. Enumerable.Repeat(1f, 20), 2], 40), ([.. Enumerable.Repeat(7f, 33), nan], 33),
        ];
        foreach ((float[] row, int want) in cases)
        {
            DeviceTensor tokens = rig.IntegerOutput(1);
            rig.Backend.ArgMax(rig.Upload(new Argument([1, row.Length], row)), tokens);
            Assert.Equal([want], rig.ReadIntegers(tokens));
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void ArgMax_agrees_with_a_plain_search(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (ElementType type in Types)
        {
            foreach ((int rows, int vocabulary) in new[] { (1, 1003), (70, 17), (9, 64) })
            {
                DeviceTensor logits = rig.Upload(Argument.Random(rows, type, 3, rows, vocabulary)), tokens = rig.IntegerOutput(rows);
                float[] x = Widened(rig.Backend, logits);
                rig.Backend.ArgMax(logits, tokens);
                Assert.Equal(Enumerable.Range(0, rows).Select(r => Best(x[(r * vocabulary)..((r + 1) * vocabulary)])[0]), rig.ReadIntegers(tokens));
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void TopK_is_the_head_of_the_sorted_row(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (ElementType type in Types)
        {
            foreach ((int vocabulary, int k) in new[] { (1, 1), (17, 0), (17, 17), (64, 10), (1003, 10), (1003, 1), (331, 200) })
            {
                const int Rows = 5;
                var argument = Argument.Random(k, type, 1, Rows, vocabulary);
                // Steps of a quarter: many equal numbers.
                argument = argument with { Numbers = Array.ConvertAll(argument.Numbers, x => MathF.Round(4 * x) / 4) };
                DeviceTensor values = rig.Output(2, Rows, k), indices = rig.IntegerOutput(Rows, k);
                rig.Backend.TopK(rig.Upload(argument), values, indices);
                float[] gotValues = rig.Read(values);
                int[] gotIndices = rig.ReadIntegers(indices);
                for (int r = 0; r < Rows; r++)
                {
                    float[] row = argument.Numbers[(r * vocabulary)..((r + 1) * vocabulary)];
                    int[] want = Best(row)[..k];
                    Assert.Equal(want, gotIndices[(r * k)..((r + 1) * k)]);
                    Assert.Equal(want.Select(i => row[i]), gotValues[(r * k)..((r + 1) * k)]);
                }
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void TopK_shows_NaN_first_and_infinities_in_their_places(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var row = new float[200];
        (row[150], row[90], row[120], row[3]) = (float.NaN, float.NaN, float.PositiveInfinity, float.NegativeInfinity);
        row[70] = 2;
        DeviceTensor values = rig.Output(0, 1, 5), indices = rig.IntegerOutput(1, 5);
        rig.Backend.TopK(rig.Upload(new Argument([1, 200], row)), values, indices);
        Assert.Equal([90, 150, 120, 70, 0], rig.ReadIntegers(indices));
        Assert.Equal([float.NaN, float.NaN, float.PositiveInfinity, 2, 0], rig.Read(values));
    }

    [Theory, MemberData(nameof(Names))]
    public void LogProbability_agrees_with_the_oracle(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (ElementType type in Types)
        {
            foreach ((int rows, int vocabulary) in new[] { (1, 1), (3, 17), (70, 331), (2, 1003) })
            {
                var logits = Argument.Random(vocabulary, type, 1, rows, vocabulary);
                logits = logits with { Numbers = Array.ConvertAll(logits.Numbers, x => 8 * x) };
                int[] tokens = [.. Enumerable.Range(0, rows).Select(r => r * 13 % vocabulary)];
                float[][] results = [.. new[] { oracle, rig }.Select(on =>
                {
                    DeviceTensor output = on.Output(0, rows);
                    on.Backend.LogProbability(on.Upload(logits), on.Upload(tokens), output);
                    return on.Read(output);
                })];
                Close.To(results[0], results[1], 1e-6, $"[{rows}, {vocabulary}] {type}");
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void LogProbability_of_masked_tokens(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        float masked = float.NegativeInfinity;
        DeviceTensor logits = rig.Upload(new Argument([3, 3], [masked, 4, 4, masked, masked, -1e4f, 1e4f, 0, masked])), output = rig.Output(0, 3);
        rig.Backend.LogProbability(logits, rig.Upload(1, 2, 2), output);
        float[] got = rig.Read(output);
        Close.To([-MathF.Log(2), 0f], got.AsSpan(0, 2), 1e-6);
        Assert.Equal(masked, got[2]);
    }

    [Theory, MemberData(nameof(Names))]
    public void LogProbability_refuses_unknown_tokens(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        DeviceTensor logits = rig.Upload(Argument.Random(1, ElementType.Float32, 0, 2, 5)), output = rig.Output(0, 2);
        foreach (int token in new[] { 5, -1 })
        {
            var refused = Assert.Throws<ArgumentException>(() => rig.Backend.LogProbability(logits, rig.Upload(0, token), output));
            Assert.Equal($"tokens: expected 0 to 4, got {token} (Parameter 'tokens')", refused.Message);
            Assert.All(rig.Read(output), x => Assert.True(float.IsNaN(x)));
        }
    }

    private static int[] Best(float[] row) => [.. Enumerable.Range(0, row.Length).OrderByDescending(i => row[i]).ThenBy(i => i)];

    private static float[] Widened(KernelBackend backend, DeviceTensor tensor) => tensor.Type switch
    {
        ElementType.BFloat16 => Array.ConvertAll(backend.Download<BFloat16>(tensor), x => (float)x),
        ElementType.Float16 => Array.ConvertAll(backend.Download<Half>(tensor), x => (float)x),
        _ => backend.Download<float>(tensor),
    };
}
