namespace Treeline.Kernels;

/// <summary>The topology of a step's new tokens: each one's parent comes before it, or is the last committed token.</summary>
/// <remarks>
/// Immutable, checked once when made. A causal chunk is the tree that happens to be a path (<see cref="Path"/>, which stores nothing per node),
/// so one masked formula serves prefill, decoding and verification. Source: attention on token trees, Miao et al. 2023 (SpecInfer), Cai et al. 2024 (Medusa).
/// </remarks>
public sealed class TokenTree
{
    /// <summary>The most nodes a tree may have that is not a path.</summary>
    public const int MaxNodes = 1024;

    private static readonly TokenTree?[] Paths = new TokenTree?[MaxNodes + 1];

    private readonly int[]? _parents;                       // null: a path
    private readonly int[]? _depths;
    private readonly ulong[]? _ancestors;                   // _words words a node, bit j of node i: j lies on i's path, i included
    private readonly int _words;

    private TokenTree(int path)
    {
        Count = path;
        Levels = path;
        Roots = path > 0 ? 1 : 0;
    }

    private TokenTree(int[] parents)
    {
        Count = parents.Length;
        _parents = parents;
        _depths = new int[Count];
        _words = (Count + 63) / 64;
        _ancestors = new ulong[Count * _words];
        for (int i = 0; i < Count; i++)
        {
            Span<ulong> own = _ancestors.AsSpan(i * _words, _words);
            if (parents[i] >= 0)
            {
                _ancestors.AsSpan(parents[i] * _words, _words).CopyTo(own);
                _depths[i] = _depths[parents[i]] + 1;
            }
            else
            {
                Roots++;
            }

            own[i >> 6] |= 1UL << (i & 63);
            Levels = Math.Max(Levels, _depths[i] + 1);
        }
    }

    /// <summary>Number of nodes.</summary>
    public int Count { get; }

    /// <summary>Nodes on the longest path from a root: the greatest depth plus one, 0 for an empty path.</summary>
    public int Levels { get; }

    /// <summary>Number of nodes whose parent is the last committed token.</summary>
    public int Roots { get; }

    /// <summary>True where node i's parent is i - 1 throughout.</summary>
    public bool IsPath => _parents is null;

    /// <summary>A path of n tokens, each the child of the one before.</summary>
    /// <param name="count">Number of tokens, 0 or more.</param>
    /// <exception cref="ArgumentOutOfRangeException">The count is negative.</exception>
    public static TokenTree Path(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        if (count > MaxNodes) return new TokenTree(count);
        return Paths[count] ??= new TokenTree(count);
    }

    /// <summary>A tree from its parents.</summary>
    /// <param name="parents">Parent of each node: a smaller index, or -1 for a child of the last committed token.</param>
    /// <exception cref="ArgumentException">A parent does not come before its child, or there are too many nodes.</exception>
    public static TokenTree FromParents(ReadOnlySpan<int> parents)
    {
        bool path = true;
        for (int i = 0; i < parents.Length; i++)
        {
            if (parents[i] < -1 || parents[i] >= i)
                throw new ArgumentException($"parents: node {i}: expected {(i == 0 ? "-1" : $"-1 to {i - 1}")}, got {parents[i]}", nameof(parents));
            path &= parents[i] == i - 1;
        }

        if (path) return Path(parents.Length);
        if (parents.Length > MaxNodes)
            throw new ArgumentException($"parents: expected at most {MaxNodes} nodes, got {parents.Length}", nameof(parents));
        return new TokenTree(parents.ToArray());
    }

    /// <summary>A tree from Medusa's list of choices: node 0 is the root, the others are the choices sorted by length, then lexicographically.</summary>
    /// <param name="choices">Each choice is a path of ranks: [0] the best guess of head 0, [0, 2] then the third best of head 1, …</param>
    /// <exception cref="ArgumentException">A choice is empty, negative, listed twice, or its prefix is missing; or there are too many.</exception>
    public static TokenTree FromChoices(IReadOnlyList<int[]> choices)
    {
        ArgumentNullException.ThrowIfNull(choices);
        if (choices.Count >= MaxNodes) throw new ArgumentException($"choices: expected at most {MaxNodes - 1} besides the root, got {choices.Count}", nameof(choices));
        int[][] sorted = SortChoices(choices);
        var parents = new int[sorted.Length + 1];
        parents[0] = -1;
        for (int i = 0; i < sorted.Length; i++)
        {
            int parent = sorted[i].Length == 1 ? -1 : Array.FindIndex(sorted, 0, i, other => other.AsSpan().SequenceEqual(sorted[i].AsSpan(0, sorted[i].Length - 1)));
            if (sorted[i].Length > 1 && parent < 0)
                throw new ArgumentException($"choices: [{string.Join(", ", sorted[i])}] is listed without its prefix", nameof(choices));
            if (i > 0 && sorted[i].AsSpan().SequenceEqual(sorted[i - 1]))
                throw new ArgumentException($"choices: [{string.Join(", ", sorted[i])}] is listed twice", nameof(choices));
            parents[i + 1] = parent + 1;
        }

        return FromParents(parents);
    }

    /// <summary>Choices in the order of their nodes: by length, then lexicographically (node i + 1 is the i-th of them).</summary>
    /// <param name="choices">Medusa's list.</param>
    /// <exception cref="ArgumentException">A choice is empty or has a negative rank.</exception>
    public static int[][] SortChoices(IReadOnlyList<int[]> choices)
    {
        ArgumentNullException.ThrowIfNull(choices);
        foreach (int[] choice in choices)
            if (choice is null || choice.Length == 0 || choice.Any(rank => rank < 0))
                throw new ArgumentException($"choices: expected lists of ranks from 0 on, got [{(choice is null ? "null" : string.Join(", ", choice))}]", nameof(choices));
        int[][] sorted = [.. choices];
        Array.Sort(sorted, static (a, b) => a.Length != b.Length ? a.Length.CompareTo(b.Length) : a.AsSpan().SequenceCompareTo(b));
        return sorted;
    }

    /// <summary>Parent of a node, -1 for a root.</summary>
    /// <param name="node">The node.</param>
    public int Parent(int node) => _parents is null ? Checked(node) - 1 : _parents[node];

    /// <summary>Depth of a node, 0 for a root.</summary>
    /// <param name="node">The node.</param>
    public int Depth(int node) => _depths is null ? Checked(node) : _depths[node];

    /// <summary>True where <paramref name="ancestor"/> lies on the path from a root to <paramref name="node"/>, the node itself included.</summary>
    /// <param name="ancestor">The node that may lie on the path.</param>
    /// <param name="node">The path's last node.</param>
    public bool IsOnPath(int ancestor, int node)
    {
        Checked(ancestor);
        if (_ancestors is null) return ancestor <= Checked(node);
        return (_ancestors[node * _words + (ancestor >> 6)] >> (ancestor & 63) & 1) != 0;
    }

    /// <summary>Bit set of the nodes on a node's path, itself included: 64 nodes a word, word 0 first. Empty for a path, whose sets are all smaller indices.</summary>
    /// <param name="node">The node.</param>
    public ReadOnlySpan<ulong> AncestorBits(int node) => _ancestors is null ? default : _ancestors.AsSpan(node * _words, _words);

    /// <summary>Writes the nodes from the root down to a node, that node included; returns their number, its depth plus one.</summary>
    /// <param name="node">The path's last node.</param>
    /// <param name="path">Receives the nodes; at least depth + 1 long.</param>
    public int PathTo(int node, Span<int> path)
    {
        int count = Depth(node) + 1;
        for (int at = node, i = count - 1; i >= 0; i--, at = Parent(at)) path[i] = at;
        return count;
    }

    private int Checked(int node) => (uint)node < (uint)Count ? node : throw new ArgumentOutOfRangeException(nameof(node), node, $"expected 0 to {Count - 1}");
}
