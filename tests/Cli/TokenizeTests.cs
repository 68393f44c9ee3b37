using System.Text;
using System.Text.Json;
using Treeline.Cli;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>treeline tokenize</c>.</summary>
public class TokenizeTests
{
    private static readonly string Model = ModelFolder.Shakespeare;

    public static TheoryData<string, string> RecordedTexts
    {
        get
        {
            using JsonDocument recorded = JsonDocument.Parse(File.ReadAllText(Path.Combine(Model, "recorded.json")));
            var data = new TheoryData<string, string>();
            foreach (JsonElement text in recorded.RootElement.GetProperty("samples").EnumerateArray())
                data.Add(text.GetProperty("text").GetString()!, string.Join(',', text.GetProperty("ids").EnumerateArray()));
            return data;
        }
    }

    [Theory, MemberData(nameof(RecordedTexts))]
    public void Texts_get_the_recorded_ids_and_ids_the_texts(string text, string ids)
    {
        using var folder = new Folder();
        File.WriteAllText(folder["text.txt"], text);
        Assert.Equal($"{ids}\n", Tool.Run("tokenize", "--model", Model, "--text", text).Succeeds().Out.ReplaceLineEndings("\n"));
        Assert.Equal($"{ids}\n", Tool.Run("tokenize", "--model", Model, "--file", folder["text.txt"]).Succeeds().Out.ReplaceLineEndings("\n"));
        Assert.Equal($"{ids}\n", Tool.Run(text, CancellationToken.None, "tokenize", "--model", Model, "--text", "-").Succeeds().Out.ReplaceLineEndings("\n"));
        Assert.Equal($"{text}\n", Tool.Run("tokenize", "--model", Model, "--ids", ids).Succeeds().Out.ReplaceLineEndings("\n"));
        JsonElement json = Tool.Run("tokenize", "--model", Model, "--ids", ids, "--json").Succeeds().Json;
        Assert.Equal(text, json.GetProperty("text").GetString());
        Assert.Equal(ids, string.Join(',', json.GetProperty("ids").EnumerateArray()));
        Assert.Equal(text, string.Concat(json.GetProperty("pieces").EnumerateArray().Select(piece => piece.GetString())));
    }

    [Theory]
    [InlineData("")]
    [InlineData(" ")]
    [InlineData(" two  spaces ")]
    [InlineData("\"quoted\" and 'single'")]
    [InlineData("\"")]
    [InlineData("line\nline\n")]
    [InlineData("--json")]
    [InlineData("-x")]
    [InlineData("--")]
    [InlineData("a=b:c")]
    [InlineData("=")]
    [InlineData("@file \\ $HOME %41 \u00e9 \U0001F333")]
    public void Every_text_arrives_as_it_is(string text)
    {
        // An equals sign where the text itself is an option's name.
        JsonElement json = Tool.Run("tokenize", "--model", Model, $"--text={text}", "--json").Succeeds().Json;
        Assert.Equal(text, json.GetProperty("text").GetString());
        if (text != "--json") Assert.Equal(text, Tool.Run("tokenize", "--model", Model, "--text", text, "--json").Succeeds().Json.GetProperty("text").GetString());
    }

    [Fact]
    public void Exactly_one_source_is_wanted()
    {
        Tool.Run("tokenize", "--model", Model).Refuses(ExitCodes.Usage, "--text", "--file", "--ids", "got 0");
        Tool.Run("tokenize", "--model", Model, "--text", "a", "--ids", "1").Refuses(ExitCodes.Usage, "got 2");
        Tool.Run("tokenize", "--text", "a").Refuses(ExitCodes.Usage, "--model");
        Tool.Run("tokenize", "--model", Model, "--text").Refuses(ExitCodes.Usage, "--text: expected a value");
    }

    [Fact]
    public void A_mark_before_a_text_in_utf8_is_no_part_of_it()
    {
        using var folder = new Folder();
        File.WriteAllText(folder["marked.txt"], "To be", new UTF8Encoding(encoderShouldEmitUTF8Identifier: true));
        Assert.Equal(Tool.Run("tokenize", "--model", Model, "--text", "To be").Succeeds().Out, Tool.Run("tokenize", "--model", Model, "--file", folder["marked.txt"]).Succeeds().Out);
    }

    [Fact]
    public void What_cannot_be_read_is_refused()
    {
        using var folder = new Folder();
        Tool.Run("tokenize", "--model", folder["no"], "--text", "a").Refuses(ExitCodes.Input, folder["no"]);
        Tool.Run("tokenize", "--model", folder.Path, "--text", "a").Refuses(ExitCodes.Input, "no tokenizer");
        Tool.Run("tokenize", "--model", Model, "--file", folder["no.txt"]).Refuses(ExitCodes.Input, "no.txt: no such file");
        Tool.Run("tokenize", "--model", Model, "--file", folder.Path).Refuses(ExitCodes.Input, folder.Path);
        Tool.Run("tokenize", "--model", Model, "--ids", "1,1024").Refuses(ExitCodes.Input, "0 to 1023", "1024");
        File.WriteAllBytes(folder["latin.txt"], [(byte)'a', 0xE9, (byte)'b']);
        Tool.Run("tokenize", "--model", Model, "--file", folder["latin.txt"]).Refuses(ExitCodes.Input, "latin.txt", "UTF-8");
        File.WriteAllBytes(folder["late.txt"], [.. Enumerable.Repeat((byte)'a', 10_000), 0xFF]);
        Tool.Run("tokenize", "--model", Model, "--file", folder["late.txt"]).Refuses(ExitCodes.Input, "late.txt", "at 10000");
        File.WriteAllText(folder["utf16.txt"], "ab", Encoding.Unicode);
        Tool.Run("tokenize", "--model", Model, "--file", folder["utf16.txt"]).Refuses(ExitCodes.Input, "utf16.txt", "UTF-8");
        File.WriteAllText(folder["vocab.json"], "{");
        File.WriteAllText(folder["merges.txt"], "");
        Tool.Run("tokenize", "--model", folder.Path, "--text", "a").Refuses(ExitCodes.Input, "vocab.json");
    }
}
