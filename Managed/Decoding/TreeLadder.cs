namespace Treeline;

/// <summary>The trees that may be tried for one drafter, each holding the one before: one tree for a fixed policy, several for <see cref="TreePolicy.Auto"/>.</summary>
internal sealed class TreeLadder
{
    // The rung of 16 nodes: a fair tree where nothing may be measured.
    private const int FixedNodes = 16;
    private static readonly int[] Sizes = [8, FixedNodes, 32, 64];

    private readonly DraftTree[] _trees;

    private TreeLadder(DraftTree[] trees) => _trees = trees;

    /// <summary>Number of rungs.</summary>
    public int Rungs => _trees.Length;

    /// <summary>A rung's tree.</summary>
    public DraftTree this[int rung] => _trees[rung];

    /// <summary>The trees of a policy for a drafter.</summary>
    /// <param name="policy">The policy.</param>
    /// <param name="levels">How many tokens ahead the drafter guesses.</param>
    /// <param name="ranks">Candidates for each of them.</param>
    /// <param name="adaptive">False: one rung, whatever the policy.</param>
    public static TreeLadder Create(TreePolicy policy, int levels, int ranks, bool adaptive)
    {
        if (policy.List is { } choices) return new TreeLadder([new DraftTree(Fitting(choices, levels, ranks))]);
        List<int[]> order = Order(levels, ranks, out int chain);
        if (!adaptive) return new TreeLadder([new DraftTree(order[..Math.Min(order.Count, FixedNodes - 1)])]);

        List<int> sizes = [];
        for (int n = 0; n <= chain; n = n < 4 ? n + 1 : n == chain ? n + 1 : Math.Min(2 * n, chain)) sizes.Add(n);
        foreach (int size in Sizes)
            if (size - 1 > chain && sizes[^1] < order.Count) sizes.Add(Math.Min(size - 1, order.Count));
        var rungs = new Dictionary<int[], int>(ReferenceEqualityComparer.Instance);
        for (int rung = sizes.Count - 1; rung >= 0; rung--)
            foreach (int[] choice in order.Take(sizes[rung])) rungs[choice] = rung;
        return new TreeLadder([.. sizes.Select(size => new DraftTree(order[..size], choice => rungs[choice]))]);
    }

    /// <summary>Guesses in the order of their worth: the chain of best guesses, then the published tree.</summary>
    private static List<int[]> Order(int levels, int ranks, out int chain)
    {
        chain = Math.Min(levels, FixedNodes);
        List<int[]> order = [.. Enumerable.Range(1, chain).Select(n => new int[n])];
        foreach (int[] choice in Fitting(TreePolicy.Medusa63.List!, levels, ranks))
            if (choice.AsSpan().ContainsAnyExcept(0) || choice.Length > chain) order.Add(choice);
        return order;
    }

    private static int[][] Fitting(int[][] choices, int levels, int ranks) =>
        [.. choices.Where(choice => choice.Length <= levels && choice.All(rank => rank < ranks))];
}
