using Treeline.Kernels;

namespace Treeline;

/// <summary>Who guesses the tokens that a step verifies.</summary>
public enum Drafter
{
    /// <summary>Nobody: one token a step.</summary>
    None,

    /// <summary>The checkpoint's Medusa heads. Cai et al. 2024.</summary>
    Medusa,

    /// <summary>Prompt lookup: what followed the latest earlier occurrence of the last few tokens.</summary>
    Lookup,
}

/// <summary>Which guesses of a verified tree become text.</summary>
public enum Acceptance
{
    /// <summary>Those that are the most probable token after their parent: the text of greedy decoding.</summary>
    Greedy,

    /// <summary>Those that are probable enough after their parent (Medusa's rule): faster, and not the model's own distribution.</summary>
    Typical,

    /// <summary>Those that the model's own draw hits: token for token the text of one-at-a-time sampling with the same seed.</summary>
    Lossless,
}

/// <summary>How a text is continued.</summary>
public sealed record GenerationOptions
{
    private const int MostGuesses = TokenTree.MaxNodes - 1;

    /// <summary>Most tokens to generate.</summary>
    public int MaxTokens { get; init; } = 256;

    /// <summary>Divides the logits; 0: always the most probable token.</summary>
    public float Temperature { get; init; }

    /// <summary>Draw from the k most probable tokens; 0: from all.</summary>
    public int TopK { get; init; }

    /// <summary>Draw from the fewest most probable tokens that reach this probability; 1: from all.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Draw from tokens at least this probable relative to the most probable one; 0: from all.</summary>
    public float MinP { get; init; }

    /// <summary>Makes tokens that the text has already less probable: positive logits are divided, others multiplied by it; 1: off. Keskar et al. 2019 (CTRL).</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>The draws are a function of this number and the token's position: same seed, same text.</summary>
    public ulong Seed { get; init; }

    /// <summary>Tokens that end the text (they are its last token, and no part of its characters); null: the model's own.</summary>
    public IReadOnlyCollection<int>? StopTokens { get; init; }

    /// <summary>Strings that end the text; the text stops before them. They need a model with a tokenizer.</summary>
    public IReadOnlyList<string> StopStrings { get; init; } = [];

    /// <summary>Whether each token comes with its log-probability: the model's own, before temperature, penalties and processors.</summary>
    public bool LogProbabilities { get; init; }

    /// <summary>Who guesses the tokens that a step verifies.</summary>
    public Drafter Drafter { get; init; }

    /// <summary>A drafter of your own; goes before <see cref="Drafter"/>.</summary>
    public IDrafter? CustomDrafter { get; init; }

    /// <summary>Which guesses are tried together.</summary>
    public TreePolicy TreePolicy { get; init; } = TreePolicy.Auto;

    /// <summary>Which guesses become text; null: greedy where the temperature is 0, else lossless.</summary>
    public Acceptance? Acceptance { get; init; }

    /// <summary>Typical acceptance: the most probability that is asked of a guess (ε).</summary>
    public float TypicalThreshold { get; init; } = 0.09f;

    /// <summary>Typical acceptance: the factor of exp(-entropy) (δ).</summary>
    public float TypicalAlpha { get; init; } = 0.3f;

    /// <summary>What edits the logits before a token is chosen, in this order, after the repetition penalty.</summary>
    public IReadOnlyList<ILogitsProcessor> Processors { get; init; } = [];

    internal Acceptance Rule => Acceptance ?? (Temperature == 0 ? Treeline.Acceptance.Greedy : Treeline.Acceptance.Lossless);

    /// <summary>Refuses options that mean nothing.</summary>
    /// <exception cref="ArgumentException">An option is out of its range or contradicts another; the message begins with its name.</exception>
    public void Validate()
    {
        Require(MaxTokens >= 1, nameof(MaxTokens), "1 or more", MaxTokens);
        Require(Temperature >= 0 && float.IsFinite(Temperature), nameof(Temperature), "0 or more", Temperature);
        Require(TopK >= 0, nameof(TopK), "0 or more", TopK);
        Require(TopP > 0 && TopP <= 1, nameof(TopP), "a number in (0, 1]", TopP);
        Require(MinP >= 0 && MinP <= 1, nameof(MinP), "a number in [0, 1]", MinP);
        Require(RepetitionPenalty > 0 && float.IsFinite(RepetitionPenalty), nameof(RepetitionPenalty), "a number above 0", RepetitionPenalty);
        Require(Enum.IsDefined(Drafter), nameof(Drafter), "None, Medusa or Lookup", Drafter);
        Require(CustomDrafter is null or { Levels: >= 0 and <= MostGuesses, Ranks: >= 1 and <= MostGuesses }, nameof(CustomDrafter), $"0 to {MostGuesses} levels and 1 to {MostGuesses} ranks", $"{CustomDrafter?.Levels} and {CustomDrafter?.Ranks}");
        Require(TreePolicy is not null, nameof(TreePolicy), "a policy", "null");
        Require(Acceptance is null || Enum.IsDefined(Acceptance.Value), nameof(Acceptance), "Greedy, Typical or Lossless", Acceptance);
        Require(Acceptance != Treeline.Acceptance.Greedy || Temperature == 0, nameof(Acceptance), "Lossless or Typical where the temperature is above 0", Acceptance);
        Require(TypicalThreshold is > 0 and <= 1, nameof(TypicalThreshold), "a number in (0, 1]", TypicalThreshold);
        Require(TypicalAlpha > 0 && float.IsFinite(TypicalAlpha), nameof(TypicalAlpha), "a number above 0", TypicalAlpha);
        Require(StopStrings is not null && StopStrings.All(text => !string.IsNullOrEmpty(text)), nameof(StopStrings), "strings that are not empty", "an empty one");
        Require(Processors is not null && Processors.All(processor => processor is not null), nameof(Processors), "processors", "null");
    }

    /// <summary>Also refuses what a model cannot do.</summary>
    internal void Validate(CausalModel model)
    {
        Validate();
        Require(StopStrings.Count == 0 || model.Tokenizer is not null, nameof(StopStrings), "none where the model has no tokenizer", StopStrings.Count);
        Require(CustomDrafter is not null || Drafter != Drafter.Medusa || model.Medusa is not null, nameof(Drafter), "None or Lookup, the model has no Medusa heads", Drafter);
    }

    internal SamplingRow Row(int position) => new(Seed, position, Temperature, TopK, TopP, MinP);

    private static void Require(bool holds, string option, string wanted, object? got)
    {
        if (!holds) throw new ArgumentException(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{option}: expected {wanted}, got {got}"), option);
    }
}
