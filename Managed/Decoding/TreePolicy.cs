using System.Globalization;
using System.Text.Json;

namespace Treeline;

/// <summary>Which combinations of a drafter's guesses are verified in one step.</summary>
public sealed class TreePolicy
{
    private const int MostGuesses = Kernels.TokenTree.MaxNodes - 1;

    // mc_sim_7b_63, the list published with Medusa: in the order in which they raise the expected number of accepted tokens most.
    private static readonly int[][] Medusa63Choices =
    [
        [0], [0, 0], [1], [0, 1], [2], [0, 0, 0], [1, 0], [0, 2], [3], [0, 3], [4], [0, 4], [2, 0], [0, 5], [0, 0, 1], [5],
        [0, 6], [6], [0, 7], [0, 1, 0], [1, 1], [7], [0, 8], [0, 0, 2], [3, 0], [0, 9], [8], [9], [1, 0, 0], [0, 2, 0], [1, 2], [0, 0, 3],
        [4, 0], [2, 1], [0, 0, 4], [0, 0, 5], [0, 0, 0, 0], [0, 1, 1], [0, 0, 6], [0, 3, 0], [5, 0], [1, 3], [0, 0, 7], [0, 0, 8], [0, 0, 9], [6, 0], [0, 4, 0], [1, 4],
        [7, 0], [0, 1, 2], [2, 0, 0], [3, 1], [2, 2], [8, 0], [0, 5, 0], [1, 5], [1, 0, 1], [0, 2, 1], [9, 0], [0, 6, 0], [0, 0, 0, 1], [1, 6], [0, 7, 0],
    ];

    private readonly string _text;

    private TreePolicy(string text, int[][]? choices)
    {
        _text = text;
        List = choices;
    }

    /// <summary>A ladder of trees (1 node, chains, 8, 16, 32, 64 nodes); the measured cost of steps and the acceptance so far decide which one is tried.</summary>
    /// <remarks>With typical acceptance, where the tree has a say in the text, one fixed tree of 16 nodes: timing never decides what a text says.</remarks>
    public static TreePolicy Auto { get; } = new("auto", null);

    /// <summary>The published tree of 63 guesses for Medusa's heads, cut to the heads that exist.</summary>
    public static TreePolicy Medusa63 { get; } = new("medusa63", Medusa63Choices);

    /// <summary>Paths of ranks, in the order of their worth; null where the policy is <see cref="Auto"/>.</summary>
    internal int[][]? List { get; }

    /// <summary>The best guess of each level, one after the other.</summary>
    /// <param name="length">Number of guesses, 0 to 1,023; cut to the levels that the drafter has.</param>
    public static TreePolicy Chain(int length)
    {
        if (length is < 0 or > MostGuesses) throw new ArgumentOutOfRangeException(nameof(length), length, $"expected 0 to {MostGuesses}");
        return new TreePolicy($"chain:{length.ToString(CultureInfo.InvariantCulture)}", [.. Enumerable.Range(1, length).Select(n => new int[n])]);
    }

    /// <summary>A list of Medusa's kind: <c>[0]</c> the best guess of level 0, <c>[0, 2]</c> below it the third best of level 1, …; cut to the levels and ranks that the drafter has.</summary>
    /// <param name="choices">The list, at most 1,023 choices.</param>
    /// <exception cref="ArgumentException">A choice is empty, negative, listed twice, or its prefix is missing; or there are too many.</exception>
    public static TreePolicy Choices(IReadOnlyList<int[]> choices)
    {
        Kernels.TokenTree.FromChoices(choices);
        int[][] list = [.. choices.Select(choice => choice.ToArray())];
        return new TreePolicy(JsonSerializer.Serialize(list), list);
    }

    /// <summary>Reads what <see cref="ToString"/> writes: <c>auto</c>, <c>medusa63</c>, <c>chain:N</c>, or a JSON list of choices such as <c>[[0],[1],[0,0]]</c>.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="ArgumentException">It is none of these.</exception>
    public static TreePolicy Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        text = text.Trim();
        if (text == "auto") return Auto;
        if (text == "medusa63") return Medusa63;
        if (text.StartsWith("chain:", StringComparison.Ordinal) && int.TryParse(text.AsSpan(6), NumberStyles.None, CultureInfo.InvariantCulture, out int length) && length <= MostGuesses)
            return Chain(length);
        if (text.StartsWith('['))
        {
            try
            {
                return Choices(JsonSerializer.Deserialize<int[][]>(text) ?? []);
            }
            catch (JsonException e)
            {
                throw new ArgumentException($"tree: expected a JSON list of lists of ranks ({e.Message})", nameof(text), e);
            }
        }

        throw new ArgumentException($"tree: expected auto, medusa63, chain:N (0 to {MostGuesses}) or a JSON list of choices, got {text}", nameof(text));
    }

    /// <inheritdoc/>
    public override string ToString() => _text;
}
