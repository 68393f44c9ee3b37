namespace Treeline;

/// <summary>What the files of a byte-level BPE tokenizer say.</summary>
internal sealed record ByteLevelModel
{
    /// <summary>The file to name where something does not fit.</summary>
    public required string File { get; init; }

    /// <summary>Token ids by name; names write bytes in <see cref="ByteAlphabet"/>.</summary>
    public required IReadOnlyDictionary<string, int> Vocabulary { get; init; }

    /// <summary>Pairs of names that become one, the most urgent first.</summary>
    public required IReadOnlyList<(string Left, string Right)> Merges { get; init; }

    /// <summary>Tokens that are recognised in a text.</summary>
    public required IReadOnlyList<AddedToken> Added { get; init; }

    /// <summary>Cuts of the text, one after the other.</summary>
    public required IReadOnlyList<TextSplitter> Splitters { get; init; }

    /// <summary>Whether a space goes before a text that begins with none.</summary>
    public bool AddsPrefixSpace { get; init; }

    /// <summary>Whether a piece that is a token is taken as it is, whatever the merges say.</summary>
    public bool IgnoresMerges { get; init; }

    /// <summary>Tokens in front of every text.</summary>
    public IReadOnlyList<int> Before { get; init; } = [];

    /// <summary>Tokens at the end of every text.</summary>
    public IReadOnlyList<int> After { get; init; } = [];
}
