using System.ComponentModel;
using System.Text.Json;
using Spectre.Console.Cli;

namespace Treeline.Cli.Commands;

internal sealed class TokenizeSettings : AnswerSettings
{
    [CommandOption("--model <DIR>")]
    [Description("The folder with the tokenizer: vocab.json and merges.txt, tokenizer.json, or tokenizer.model")]
    public string? Model { get; init; }

    [CommandOption("--text <TEXT>")]
    [Description("Text to turn into ids; - reads it from standard input")]
    [TypeConverter(typeof(VerbatimText))]
    public string? Text { get; init; }

    [CommandOption("--file <FILE>")]
    [Description("The same with the text in a file; - is standard input")]
    public string? File { get; init; }

    [CommandOption("--ids <IDS>")]
    [Description("Ids to turn into text: 1,2,3, or a file of numbers, or a safetensors file with ids; - is standard input")]
    public string? Ids { get; init; }
}

/// <summary>Text to token ids and back.</summary>
internal sealed class TokenizeCommand : ToolCommand<TokenizeSettings>
{
    protected override int Run(TokenizeSettings settings, Terminal terminal)
    {
        int given = new[] { settings.Text, settings.File, settings.Ids }.Count(value => value is not null);
        if (given != 1) throw ToolException.Usage($"expected one of --text, --file and --ids, got {given}");
        string folder = ModelSettings.RequireFolder("--model", settings.Model);
        TextTokenizer tokenizer = TextTokenizer.Load(folder) ?? throw NoTokenizer(folder);
        int[] ids;
        if (settings.Ids is not null)
        {
            ids = TokenIds.Read("--ids", settings.Ids, terminal);
            TokenIds.RequireKnown("--ids", ids, tokenizer.VocabularySize);
        }
        else
        {
            ids = tokenizer.Encode(settings.Text is null ? TextSource.File(settings.File!, terminal) : TextSource.Value(settings.Text, terminal));
        }

        if (settings.Json) Json.Write(terminal.Out, json => Write(json, tokenizer, ids));
        else terminal.Out.WriteLine(settings.Ids is null ? string.Join(',', ids) : tokenizer.Decode(ids));
        return ExitCodes.Success;
    }

    internal static ToolException NoTokenizer(string folder) => ToolException.Input($"{folder}: holds no tokenizer: none of vocab.json with merges.txt, tokenizer.json, tokenizer.model");

    private static void Write(Utf8JsonWriter json, TextTokenizer tokenizer, int[] ids)
    {
        json.WriteArray("ids", ids);
        json.WriteString("text", tokenizer.Decode(ids));
        json.WriteStartArray("pieces");
        foreach (int id in ids) json.WriteStringValue(tokenizer.Decode([id]));
        json.WriteEndArray();
        json.WriteNumber("vocabulary", tokenizer.VocabularySize);
    }
}
