using System.Text;

namespace Treeline;

/// <summary>What the tokenizers share about texts.</summary>
internal static class TokenizerText
{
    // Strings of one character, made once.
    private static readonly string[] Letters = [.. Enumerable.Range(0, 0x200).Select(letter => ((char)letter).ToString())];

    /// <summary>A text with U+FFFD for every half of a surrogate pair.</summary>
    public static string WellFormed(string text)
    {
        if (!text.AsSpan().ContainsAnyInRange('\ud800', '\udfff')) return text;
        var whole = new StringBuilder(text.Length);
        foreach (Rune rune in text.EnumerateRunes()) whole.Append(rune);
        return whole.ToString();
    }

    /// <summary>A character below U+0200 as a string.</summary>
    public static string Letter(char letter) => Letters[letter];

    /// <summary>A character for a message.</summary>
    public static string Shown(Rune rune) => Rune.IsControl(rune) ? $"U+{rune.Value:X4}" : $"'{rune}' (U+{rune.Value:X4})";

    /// <summary>Whether a number may be a token's id: the size of the vocabulary is one more.</summary>
    public static bool IsId(int number) => number is >= 0 and < int.MaxValue;

    public static ArgumentException UnknownToken(int token, int size) => new($"token: expected one of the vocabulary's (0 to {size - 1}), got {token}", nameof(token));
}
