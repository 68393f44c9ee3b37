using System.Text.RegularExpressions;

namespace Treeline;

/// <summary>A token that is recognised in a text before anything else is.</summary>
/// <param name="Text">How it is written.</param>
/// <param name="Id">The token.</param>
/// <param name="TakesLeft">Spaces before it belong to it.</param>
/// <param name="TakesRight">Spaces after it belong to it.</param>
/// <param name="IsWord">It is recognised between word boundaries only.</param>
internal sealed record AddedToken(string Text, int Id, bool TakesLeft = false, bool TakesRight = false, bool IsWord = false);

/// <summary>Finds added tokens in a text: the leftmost first, of several there the longest.</summary>
internal sealed class AddedTokens
{
    private readonly Dictionary<string, int> _ids = [];
    private readonly Regex? _any;

    public AddedTokens(IEnumerable<AddedToken> tokens)
    {
        var patterns = new List<string>();
        foreach (AddedToken token in tokens.OrderByDescending(token => token.Text.Length))
            if (token.Text.Length > 0 && _ids.TryAdd(token.Text, token.Id)) patterns.Add(Pattern(token));
        if (patterns.Count > 0) _any = new Regex(string.Join('|', patterns), RegexOptions.CultureInvariant);
    }

    /// <summary>The text's parts in order, none of them empty: an added token, or text between (token −1).</summary>
    public IEnumerable<(string Text, int Token)> Split(string text)
    {
        int at = 0;
        for (Match? match = _any?.Match(text); match is { Success: true }; match = match.NextMatch())
        {
            if (match.Index > at) yield return (text[at..match.Index], -1);
            at = match.Index + match.Length;
            yield return (match.Value, _ids.TryGetValue(match.Value, out int id) ? id : _ids[match.Groups.Cast<Group>().Last(group => group.Success).Value]);
        }

        if (at < text.Length) yield return (text[at..], -1);
    }

    // The group holds the token without the spaces that it takes.
    private static string Pattern(AddedToken token)
    {
        string name = $"({Regex.Escape(token.Text)})";
        if (token.IsWord) name = $@"(?<!\w){name}(?!\w)";
        return $"{(token.TakesLeft ? @"\s*" : "")}{name}{(token.TakesRight ? @"\s*" : "")}";
    }
}
