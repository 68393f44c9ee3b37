using System.Globalization;

namespace Treeline.Cli;

/// <summary>Token ids that a verb reads: a list such as <c>1,2,3</c>, a text of numbers, or a safetensors file with <c>ids</c>.</summary>
internal static class TokenIds
{
    private static readonly char[] Separators = [' ', '\t', '\r', '\n', ',', ';', '[', ']'];

    /// <summary>Reads ids.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="text">A list, a file, or <c>-</c> for standard input.</param>
    /// <param name="terminal">Where standard input is.</param>
    /// <exception cref="ToolException">There is no such file, or it holds something else.</exception>
    public static int[] Read(string option, string text, Terminal terminal)
    {
        if (text == "-") return Numbers($"{option}: standard input", terminal.ReadInput());
        if (text.All(c => char.IsAsciiDigit(c) || char.IsWhiteSpace(c) || c is ',' or '-')) return Numbers(option, text);
        if (!File.Exists(text)) throw ToolException.Input($"{option}: expected a file or a list such as 1,2,3, got {text}");
        return IsSafetensors(text) ? Tensor(text) : Numbers(text, TextSource.File(text, terminal));
    }

    /// <summary>Refuses ids that a vocabulary does not have.</summary>
    public static void RequireKnown(string option, ReadOnlySpan<int> ids, int vocabularySize)
    {
        for (int i = 0; i < ids.Length; i++)
            if ((uint)ids[i] >= (uint)vocabularySize) throw ToolException.Input($"{option}: expected tokens from 0 to {vocabularySize - 1}, got {ids[i]} at place {i}");
    }

    private static int[] Numbers(string what, string text)
    {
        string[] words = text.Split(Separators, StringSplitOptions.RemoveEmptyEntries);
        if (words.Length == 0) throw ToolException.Input($"{what}: expected token ids such as 1,2,3, got none");
        var ids = new int[words.Length];
        for (int i = 0; i < ids.Length; i++)
        {
            if (!int.TryParse(words[i], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out ids[i]))
                throw ToolException.Input($"{what}: expected whole numbers, got {(words[i].Length > 40 ? words[i][..40] + "…" : words[i])} at place {i}");
        }

        return ids;
    }

    private static int[] Tensor(string path)
    {
        using SafetensorsFile file = SafetensorsFile.Open(path);
        CheckpointTensor ids = file["ids"];
        // A batch of one, as tokenizers of the field like to give it, is one text too.
        bool isText = ids.Shape.Length == 1 || (ids.Shape.Length == 2 && ids.Shape[0] == 1);
        if (!isText || ids.Count == 0) throw ToolException.Input($"{path}: ids: expected a shape of [tokens], at least one, got {ids}");
        return ids.ToInt32();
    }

    // A text has no zero bytes; the length that begins a safetensors file always has.
    private static bool IsSafetensors(string path)
    {
        using FileStream stream = File.OpenRead(path);
        Span<byte> start = stackalloc byte[8];
        return start[..stream.ReadAtLeast(start, start.Length, throwOnEndOfStream: false)].Contains((byte)0);
    }
}
