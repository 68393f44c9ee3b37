using System.Globalization;

namespace Treeline.Cli;

/// <summary>Option values as text, so that a bad one is refused with the option's own name.</summary>
internal static class Parse
{
    public static int Whole(string option, string? text, int fallback, int least, int most = int.MaxValue)
    {
        if (text is null) return fallback;
        if (int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) && value >= least && value <= most) return value;
        throw ToolException.Usage($"{option}: expected a whole number {(most == int.MaxValue ? $"from {least} on" : $"from {least} to {most}")}, got {text}");
    }

    public static ulong Seed(string option, string? text, ulong fallback)
    {
        if (text is null) return fallback;
        if (ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong value)) return value;
        throw ToolException.Usage($"{option}: expected a whole number from 0 to {ulong.MaxValue}, got {text}");
    }

    /// <summary>One of some words.</summary>
    public static T Word<T>(string option, string text, params ReadOnlySpan<(string Word, T Value)> words)
    {
        foreach ((string word, T value) in words)
            if (word == text) return value;
        List<string> known = [];
        foreach ((string word, _) in words) known.Add(word);
        throw ToolException.Usage($"{option}: expected {string.Join(", ", known[..^1])} or {known[^1]}, got {text}");
    }

    public static double Real(string option, string? text, double fallback, double least, double most = double.MaxValue)
    {
        if (text is null) return fallback;
        if (double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double value) && value >= least && value <= most) return value;
        throw ToolException.Usage(string.Create(CultureInfo.InvariantCulture,
            $"{option}: expected a number {(most == double.MaxValue ? $"from {least} on" : $"from {least:0.#########} to {most}")}, got {text}"));
    }
}
