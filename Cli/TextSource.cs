using System.Text;

namespace Treeline.Cli;

/// <summary>Texts that a verb reads.</summary>
internal static class TextSource
{
    // Refuses bytes that are none of UTF-8's, where the usual one would put other characters in their place.
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: true, throwOnInvalidBytes: true);

    /// <summary>Reads UTF-8, with its mark or without, and nothing else: where a mark of another encoding stands, that is no text.</summary>
    /// <param name="bytes">The text's bytes; closed with the reader.</param>
    public static StreamReader Reader(Stream bytes) => new(bytes, Strict, detectEncodingFromByteOrderMarks: false);

    /// <summary>A text given as an option's value; <c>-</c>: standard input.</summary>
    public static string Value(string text, Terminal terminal) => text == "-" ? terminal.ReadInput() : text;

    /// <summary>A file's text; <c>-</c>: standard input.</summary>
    /// <exception cref="ToolException">It is missing, cannot be read, or is not UTF-8.</exception>
    public static string File(string path, Terminal terminal)
    {
        if (path == "-") return terminal.ReadInput();
        try
        {
            byte[] bytes = System.IO.File.ReadAllBytes(path);
            return Strict.GetString(bytes.AsSpan().StartsWith(Strict.Preamble) ? bytes.AsSpan(Strict.Preamble.Length) : bytes);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw ToolException.Input($"{path}: no such file", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ToolException.Input($"{path}: cannot be read: {e.Message}", e);
        }
        catch (DecoderFallbackException e)
        {
            throw ToolException.Input($"{path}: expected a text in UTF-8, got a byte that is none at {e.Index}", e);
        }
    }
}
