using System.ComponentModel;
using System.Text.Json;
using Spectre.Console.Cli;

namespace Treeline.Cli.Commands;

/// <summary>What is continued, and who guesses.</summary>
internal sealed class GenerateSettings : SamplingSettings
{
    [CommandOption("--prompt <TEXT>")]
    [Description("The text to continue; - reads it from standard input")]
    [TypeConverter(typeof(VerbatimText))]
    public string? Prompt { get; init; }

    [CommandOption("--drafter <NAME>")]
    [Description("Who guesses the tokens that a step verifies: none, medusa (the model's heads), lookup (the text so far)")]
    [DefaultValue("none")]
    public string Drafter { get; init; } = "none";

    [CommandOption("--tree <TREE>")]
    [Description("Which guesses are verified together: auto, medusa63, chain:N, or a JSON file with Medusa's list of choices")]
    [DefaultValue("auto")]
    public string Tree { get; init; } = "auto";

    [CommandOption("--acceptance <RULE>")]
    [Description("Which guesses become text: greedy, typical, lossless; default: greedy at temperature 0, else lossless")]
    public string? Acceptance { get; init; }

    [CommandOption("--stats")]
    [Description("Say at the end what was done and where the time went: on standard error, or in the JSON")]
    public bool Stats { get; init; }

    /// <summary>The options of the library, checked one by one.</summary>
    /// <exception cref="ToolException">A value is out of its range, or two contradict each other.</exception>
    public GenerationOptions Options(Terminal terminal)
    {
        var options = new GenerationOptions
        {
            MaxTokens = Parse.Whole("--max-tokens", MaxTokens, 256, 1),
            Temperature = (float)Parse.Real("--temperature", Temperature, 0, 0, 1e6),
            TopK = Parse.Whole("--top-k", TopK, 0, 0),
            TopP = (float)Parse.Real("--top-p", TopP, 1, 1e-9, 1),
            MinP = (float)Parse.Real("--min-p", MinP, 0, 0, 1),
            RepetitionPenalty = (float)Parse.Real("--repetition-penalty", RepetitionPenalty, 1, 1e-6, 1e6),
            Seed = Parse.Seed("--seed", Seed, 0),
            StopStrings = Stop,
            Drafter = Parse.Word("--drafter", Drafter, ("none", Treeline.Drafter.None), ("medusa", Treeline.Drafter.Medusa), ("lookup", Treeline.Drafter.Lookup)),
            TreePolicy = ReadTree(Tree),
            Acceptance = Acceptance is null ? null : Parse.Word<Acceptance?>("--acceptance", Acceptance,
                ("greedy", Treeline.Acceptance.Greedy), ("typical", Treeline.Acceptance.Typical), ("lossless", Treeline.Acceptance.Lossless)),
        };
        if (options is { Acceptance: Treeline.Acceptance.Greedy, Temperature: > 0 })
            throw ToolException.Usage($"--acceptance: expected lossless or typical at a temperature above 0, got greedy (--temperature {Temperature})");
        if (options.Temperature == 0 && (options.TopK > 0 || options.TopP < 1 || options.MinP > 0))
            terminal.Warn("--top-k, --top-p and --min-p change nothing at --temperature 0, where the most probable token is taken");
        if (options.Drafter == Treeline.Drafter.None && options.TreePolicy != TreePolicy.Auto)
            terminal.Warn("--tree changes nothing without a --drafter");
        return options;
    }

    private static TreePolicy ReadTree(string text)
    {
        bool isWord = text is "auto" or "medusa63" || text.StartsWith("chain:", StringComparison.Ordinal);
        if (!isWord && (File.Exists(text) || text.EndsWith(".json", StringComparison.Ordinal))) return ReadChoices(text);
        try
        {
            return isWord ? TreePolicy.Parse(text) : throw new FormatException();
        }
        catch (Exception e) when (e is ArgumentException or FormatException)
        {
            throw ToolException.Usage($"--tree: expected auto, medusa63, chain:N (N from 0 to 1023) or a JSON file that exists, got {text}");
        }
    }

    private static TreePolicy ReadChoices(string file)
    {
        try
        {
            return TreePolicy.Choices(ChoiceList.Parse(File.ReadAllText(file)));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw ToolException.Input($"--tree: {file}: no such file", e);
        }
        catch (Exception e) when (e is JsonException or ArgumentException or IOException or UnauthorizedAccessException)
        {
            throw ToolException.Input($"--tree: {file}: {e.Message}", e);
        }
    }
}
