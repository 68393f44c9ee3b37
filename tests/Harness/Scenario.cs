using Treeline.Kernels;

namespace Treeline.Tests.Harness;

/// <summary>A random model of one or two attention layers with a random past, tree and future: the same for every backend.</summary>
internal sealed class Scenario
{
    private readonly int _seed;

    /// <summary>Draws a scenario.</summary>
    /// <param name="attention"><c>flash</c> or <c>softmax</c>: the first layer's.</param>
    /// <param name="seed">Decides everything.</param>
    /// <param name="most">The most nodes of the tree.</param>
    /// <param name="groupSize">The first layer's; 0: any.</param>
    public Scenario(string attention, int seed, int most = 70, int groupSize = 0)
    {
        _seed = seed;
        Random = new Random(seed);
        AttentionSpec spec = attention == "softmax" ? Random.Softmax() : Random.Flash(groupSize);
        Specs = Random.Chance(0.4) ? [spec, Random.Sibling(spec)] : [spec];
        int block = spec.BlockLength;
        // Softmax: around the edges of its blocks of 64 and its parts of 1,024 positions. Grouped: anywhere in the first groups.
        int past = attention == "softmax"
            ? Random.Pick(Random.Next(0, 20), Random.Next(50, 80), Random.Next(110, 140), Random.Next(1000, 1040))
            : Random.Next(0, 3 * block);
        Past = Tokens.Random(Random, spec, past);
        Tree = Random.Tree(Random.Next(1, most + 1));
        Nodes = Tokens.Random(Random, spec, Tree.Count);
        Next = Tokens.Random(Random, spec, Random.Next(1, block + 10));
    }

    public Random Random { get; }

    public IReadOnlyList<AttentionSpec> Specs { get; }

    public Tokens Past { get; }

    public TokenTree Tree { get; }

    /// <summary>The tree's tokens.</summary>
    public Tokens Nodes { get; }

    /// <summary>Tokens that follow.</summary>
    public Tokens Next { get; }

    public AttentionRig Rig(KernelBackend backend, ElementType inputType = ElementType.Float32) => new(backend, Specs, _seed, slots: 8, inputType: inputType);

    /// <summary>Random tokens of the scenario's shape.</summary>
    public Tokens More(int count) => Tokens.Random(Random, Specs[0], count);

    /// <summary>Nodes whose paths are worth a comparison: the deepest, the last, some others; their paths cover much of the tree.</summary>
    public int[][] Paths(int most)
    {
        int[] all = [.. Enumerable.Range(0, Tree.Count)];
        IEnumerable<int> some = [all.MaxBy(Tree.Depth), Tree.Count - 1, .. Enumerable.Range(0, most).Select(_ => Random.Next(Tree.Count))];
        return [.. some.Distinct().Take(most).Select(PathTo)];
    }

    public int[] PathTo(int node)
    {
        var path = new int[Tree.Depth(node) + 1];
        Tree.PathTo(node, path);
        return path;
    }

    /// <summary>Chosen tokens' rows of an output <c>[layers, tokens, …]</c>.</summary>
    public double[] Rows(double[] output, int count, params ReadOnlySpan<int> tokens)
    {
        int width = Specs[0].QueryHeads * Specs[0].ValueDim;
        List<double> rows = [];
        for (int layer = 0; layer < Specs.Count; layer++)
            foreach (int token in tokens) rows.AddRange(output.AsSpan((layer * count + token) * width, width));
        return [.. rows];
    }

    /// <summary>The whole life of a sequence and its neighbours, every output in order: what threads, widths and backends are compared by.</summary>
    public List<double[]> Play(AttentionRig rig)
    {
        var random = new Random(_seed + 1);
        List<double[]> outputs = [.. rig.Advance(0, Past, random.Cut(Past.Count, 50))];
        Tokens prompt = Tokens.Random(random, Specs[0], random.Next(1, 90)), one = Tokens.Random(random, Specs[0], 1);
        rig.State.Fork(0, 1);
        outputs.AddRange(rig.Run(Feed.Advance(2, prompt), Feed.Verify(0, Tree, Nodes), Feed.Advance(1, one), Feed.Verify(3, Tree, Nodes)));
        int[] path = PathTo(random.Next(Tree.Count));
        rig.Commit([[], path, [], PathTo(0)]);
        outputs.AddRange(rig.Run(Feed.Advance(0, Next), Feed.Advance(1, Next), Feed.Verify(2, Tree, Nodes), Feed.Advance(3, Next)));
        return outputs;
    }

    public override string ToString() => $"seed {_seed}, past {Past.Count}, tree of {Tree.Count} with {Tree.Levels} levels, {string.Join(" and ", Specs)}";
}
