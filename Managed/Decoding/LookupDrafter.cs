namespace Treeline;

/// <summary>Prompt lookup: the text goes on as it did after the latest earlier occurrence of its last few tokens.</summary>
/// <remarks>Saxena 2023 (prompt lookup decoding). An occurrence that reaches the end of the text goes on with its own guesses, so that a loop is guessed as a loop.</remarks>
public sealed class LookupDrafter : IDrafter
{
    private const int LongestMatch = 3;

    /// <inheritdoc/>
    public int Levels => 16;

    /// <inheritdoc/>
    public int Ranks => 1;

    /// <inheritdoc/>
    public void Draft(Sequence sequence, Span<int> guesses)
    {
        ArgumentNullException.ThrowIfNull(sequence);
        Draft(sequence.Tokens, guesses);
    }

    internal static void Draft(ReadOnlySpan<int> tokens, Span<int> guesses)
    {
        guesses.Fill(-1);
        for (int length = Math.Min(LongestMatch, tokens.Length - 1); length > 0; length--)
        {
            int match = tokens[..^1].LastIndexOf(tokens[^length..]);
            if (match < 0) continue;
            int next = match + length;
            for (int i = 0; i < guesses.Length; i++, next++) guesses[i] = next < tokens.Length ? tokens[next] : guesses[next - tokens.Length];
            return;
        }
    }
}
