using Treeline.Kernels;

namespace Treeline.Tests.Harness;

/// <summary>Random data that is the same in every run.</summary>
internal static class Seeded
{
    /// <summary>Standard normal numbers.</summary>
    public static float[] Floats(this Random random, int count, double scale = 1)
    {
        var numbers = new float[count];
        for (int i = 0; i < count; i++)
            numbers[i] = (float)(scale * Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
        return numbers;
    }

    /// <summary>One of them.</summary>
    public static T Pick<T>(this Random random, params ReadOnlySpan<T> choices) => choices[random.Next(choices.Length)];

    public static bool Chance(this Random random, double probability) => random.NextDouble() < probability;

    /// <summary>Grouped attention with any combination of its parts; odd sizes as often as round ones.</summary>
    public static AttentionSpec Flash(this Random random, int groupSize = 0)
    {
        while (true)
        {
            int keyValueHeads = random.Next(1, 4);
            bool global = random.Chance(0.75);
            var spec = new AttentionSpec
            {
                Attention = "flash",
                KeyValueHeads = keyValueHeads,
                QueryHeads = keyValueHeads * random.Next(1, 4),
                HeadDim = random.Pick(1, 2, 5, 13, 16, 20, 32, 33),
                ValueDim = random.Pick(1, 3, 7, 16, 17, 24, 32, 35),
                GroupSize = groupSize > 0 ? groupSize : random.Pick(16, 16, 17, 24, 31, 32, 64, 70),
                Local = random.Pick(LocalKind.None, LocalKind.Relu2, LocalKind.Relu2, LocalKind.Yoso8),
                Global = global,
                HasAlpha = global && random.Chance(0.7),
                ConvTaps = random.Pick(0, 1, 2, 4, 9, 32, 40),
                Norm = random.Pick(OutputNorm.None, OutputNorm.None, OutputNorm.Global, OutputNorm.Together, OutputNorm.Castling),
            };
            if (Attentions.Find("flash")!.IsValid(spec, out _)) return Smooth(spec);
        }
    }

    /// <summary>Softmax attention of some shape.</summary>
    public static AttentionSpec Softmax(this Random random)
    {
        int keyValueHeads = random.Next(1, 4);
        return AttentionSpec.Softmax(keyValueHeads * random.Next(1, 4), keyValueHeads, random.Pick(1, 2, 5, 16, 20, 33), random.Pick(1, 3, 16, 17, 35)) with
        {
            ScoreScale = random.Pick<float?>(null, null, 0.3f),
        };
    }

    /// <summary>Another spec with the same heads and channels: a second layer for the same tokens.</summary>
    public static AttentionSpec Sibling(this Random random, AttentionSpec spec)
    {
        AttentionSpec other = spec.Attention == "softmax" && random.Chance(0.3) ? random.Softmax() : random.Flash();
        return Smooth(other with { QueryHeads = spec.QueryHeads, KeyValueHeads = spec.KeyValueHeads, HeadDim = spec.HeadDim, ValueDim = spec.ValueDim });
    }

    /// <summary>A tree: a few roots, narrow and deep or wide and shallow.</summary>
    public static TokenTree Tree(this Random random, int nodes)
    {
        int back = random.Pick(1, 2, 3, 8, nodes);          // how far before its child a parent may lie: 1 is a path
        double rootChance = random.Pick(0, 0.05, 0.3);
        var parents = new int[nodes];
        for (int i = 0; i < nodes; i++) parents[i] = i == 0 || random.Chance(rootChance) ? -1 : Math.Max(0, i - random.Next(1, back + 1));
        return TokenTree.FromParents(parents);
    }

    /// <summary>Sizes that add up to a total.</summary>
    public static int[] Cut(this Random random, int total, int most)
    {
        List<int> sizes = [];
        for (int left = total; left > 0; left -= sizes[^1]) sizes.Add(random.Next(1, Math.Min(most, left) + 1));
        return [.. sizes];
    }

    // A norm over very few channels is often near 0, and there x / (ε + ‖x‖) multiplies the rounding of the sums behind x: with these a large ε.
    private static AttentionSpec Smooth(AttentionSpec spec) => spec is { ValueDim: < 4, Norm: not OutputNorm.None }
        ? spec with { Norm = spec.Norm == OutputNorm.Castling ? OutputNorm.Together : spec.Norm, NormEpsilon = 10 }
        : spec;
}
