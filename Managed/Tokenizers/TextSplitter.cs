using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Treeline;

/// <summary>Cuts a text by a pattern before the tokens are looked for: no token reaches across a cut.</summary>
/// <remarks>Patterns are written for code points; .NET's match UTF-16 units, so characters beyond U+FFFF are shown to them as one unit of the same category.</remarks>
internal sealed class TextSplitter
{
    /// <summary>GPT-2's own: contractions, words, numbers, the rest, each with its leading space.</summary>
    public const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    /// <summary>One character of each category, in <see cref="UnicodeCategory"/>'s order; a category without characters beyond U+FFFF has its own all the same.</summary>
    internal const string Examples =
        "\u040b\u045b\u1f88\u02b0\u05d0\u0300\u0903\u0488\u0660\u2160\u00b2\u00a0\u2028\u2029\u0001\u00ad\ufffd\ue000\u203f\u2010\u0f3a\u0f3b\u00ab\u00bb\u00a1\u00ac\u00a2\u00a8\u00a6\u0378";

    // A pattern from a file may be hostile: one match of a sane one takes far less.
    private static readonly TimeSpan MostTime = TimeSpan.FromSeconds(10);

    private readonly Regex _pattern;
    private readonly bool _keepsGaps;

    /// <param name="pattern">What is cut out.</param>
    /// <param name="keepsGaps">Whether the text between is kept too.</param>
    /// <exception cref="ArgumentException">It is no pattern that .NET reads in the way that it is meant.</exception>
    public TextSplitter(string pattern, bool keepsGaps = true)
    {
        // Oniguruma's set intersection and named sets would be read as plain characters.
        if (pattern.Contains("&&", StringComparison.Ordinal) || pattern.Contains("[:", StringComparison.Ordinal))
            throw new ArgumentException("sets with && or [: :] are not supported", nameof(pattern));
        _pattern = new Regex(pattern, RegexOptions.CultureInvariant, MostTime);
        _keepsGaps = keepsGaps;
    }

    /// <summary>Cuts each of some parts of a text.</summary>
    public List<(int Start, int Length)> Split(ReadOnlySpan<char> text, List<(int Start, int Length)> parts)
    {
        var pieces = new List<(int, int)>();
        foreach ((int start, int length) in parts) Split(text.Slice(start, length), start, pieces);
        return pieces;
    }

    private void Split(ReadOnlySpan<char> text, int offset, List<(int, int)> pieces)
    {
        int[]? starts = null;
        if (text.ContainsAnyInRange('\ud800', '\udfff')) (text, starts) = InCodePoints(text);
        int at = 0;
        foreach (ValueMatch match in _pattern.EnumerateMatches(text))
        {
            if (match.Length == 0) continue;
            if (_keepsGaps) Add(at, match.Index);
            at = match.Index + match.Length;
            Add(match.Index, at);
        }

        if (_keepsGaps) Add(at, text.Length);

        void Add(int from, int to)
        {
            if (from == to) return;
            if (starts is not null) (from, to) = (starts[from], starts[to]);
            pieces.Add((offset + from, to - from));
        }
    }

    private static (string Text, int[] Starts) InCodePoints(ReadOnlySpan<char> text)
    {
        var shown = new StringBuilder(text.Length);
        var starts = new List<int>();
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            starts.Add(at);
            at += rune.Utf16SequenceLength;
            shown.Append(rune.IsBmp ? (char)rune.Value : Examples[(int)Rune.GetUnicodeCategory(rune)]);
        }

        starts.Add(at);
        return (shown.ToString(), [.. starts]);
    }
}
