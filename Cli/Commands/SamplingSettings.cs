using System.ComponentModel;
using Spectre.Console.Cli;

namespace Treeline.Cli.Commands;

/// <summary>How the next token is chosen.</summary>
internal class SamplingSettings : ModelSettings
{
    [CommandOption("--max-tokens <N>")]
    [Description("Most tokens to generate")]
    [DefaultValue("256")]
    public string? MaxTokens { get; init; }

    [CommandOption("--temperature <X>")]
    [Description("Divides the logits; 0: always the most probable token")]
    [DefaultValue("0")]
    public string? Temperature { get; init; }

    [CommandOption("--top-k <K>")]
    [Description("Draw from the K most probable tokens; 0: from all")]
    [DefaultValue("0")]
    public string? TopK { get; init; }

    [CommandOption("--top-p <P>")]
    [Description("Draw from the fewest most probable tokens that reach probability P; 1: from all")]
    [DefaultValue("1")]
    public string? TopP { get; init; }

    [CommandOption("--min-p <P>")]
    [Description("Draw from tokens at least P times as probable as the most probable one; 0: from all")]
    [DefaultValue("0")]
    public string? MinP { get; init; }

    [CommandOption("--repetition-penalty <X>")]
    [Description("Above 1: tokens that the text has already become less probable; 1: off")]
    [DefaultValue("1")]
    public string? RepetitionPenalty { get; init; }

    [CommandOption("--seed <N>")]
    [Description("Same seed, same text")]
    [DefaultValue("0")]
    public string? Seed { get; init; }

    [CommandOption("--stop <TEXT>")]
    [Description("End the text before this one; may be given several times")]
    public string[] Stop { get; init; } = [];
}
