using Treeline.Kernels;

namespace Treeline;

/// <summary>A topology whose nodes say which guess they hold: node 0 is the sequence's last token, the others one rank at one level.</summary>
internal sealed class DraftTree
{
    private readonly int[][] _choices;                      // in the order of the nodes, without node 0
    private readonly int[] _rungs;
    private readonly DraftTree?[] _cuts;

    /// <summary>Makes a tree of choices.</summary>
    /// <param name="choices">Prefix-closed paths of ranks, any order.</param>
    /// <param name="rung">For each choice (given in any order) the smallest rung of a ladder that holds it; null: one rung.</param>
    public DraftTree(IReadOnlyList<int[]> choices, Func<int[], int>? rung = null)
    {
        Tree = TokenTree.FromChoices(choices);
        _choices = TokenTree.SortChoices(choices);
        _rungs = [0, .. _choices.Select(choice => rung?.Invoke(choice) ?? 0)];
        _cuts = new DraftTree?[Tree.Levels];
    }

    /// <summary>The tree of one node: no guesses.</summary>
    public static DraftTree Single { get; } = new([]);

    public TokenTree Tree { get; }

    /// <summary>Number of nodes.</summary>
    public int Count => Tree.Count;

    /// <summary>Nodes on the longest path, node 0 included.</summary>
    public int Levels => Tree.Levels;

    /// <summary>The smallest rung of its ladder that holds a node.</summary>
    public int Rung(int node) => _rungs[node];

    /// <summary>The same tree without the nodes below a level; the same object each time.</summary>
    /// <param name="levels">Levels that stay, at least 1.</param>
    public DraftTree Cut(int levels)
    {
        if (levels >= Levels) return this;
        return _cuts[levels] ??= Without(levels);
    }

    /// <summary>Writes the nodes' tokens.</summary>
    /// <param name="root">The sequence's last token.</param>
    /// <param name="guesses"><c>[levels, ranks]</c>.</param>
    /// <param name="ranks">Candidates a level.</param>
    /// <param name="tokens">Receives <c>[nodes]</c>.</param>
    public void Fill(int root, ReadOnlySpan<int> guesses, int ranks, Span<int> tokens)
    {
        tokens[0] = root;
        for (int node = 1; node < Count; node++)
        {
            int[] choice = _choices[node - 1];
            int level = (choice.Length - 1) * ranks, guess = guesses[level + choice[^1]];
            // A level with fewer candidates repeats its best one: of equal siblings one is accepted, the others cost a row.
            tokens[node] = guess >= 0 ? guess : guesses[level];
        }
    }

    private DraftTree Without(int levels)
    {
        var rungs = new Dictionary<int[], int>(ReferenceEqualityComparer.Instance);
        for (int i = 0; i < _choices.Length; i++) rungs[_choices[i]] = _rungs[i + 1];
        return new DraftTree([.. _choices.Where(choice => choice.Length < levels)], choice => rungs[choice]);
    }
}
