using System.Text;

namespace Treeline;

/// <summary>Turns tokens into text as they come: whole characters only.</summary>
/// <remarks>
/// Bytes that may be the beginning of a character are held back until it is complete or certain not to become one (then U+FFFD).
/// All pieces together are the text that <see cref="TextTokenizer.Decode"/> gives for all tokens. For use by one thread at a time.
/// </remarks>
public sealed class StreamingDetokenizer
{
    private readonly TextTokenizer _tokenizer;
    private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
    private char[] _chars = new char[64];
    private bool _atStart;

    /// <summary>Begins a text.</summary>
    /// <param name="tokenizer">Whose tokens come.</param>
    /// <param name="continues">True where the tokens go on with a text that others have begun (a prompt): a leading space is text then.</param>
    public StreamingDetokenizer(TextTokenizer tokenizer, bool continues = false)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        _tokenizer = tokenizer;
        _atStart = !continues;
    }

    /// <summary>Adds a token.</summary>
    /// <param name="token">The token.</param>
    /// <returns>The characters that it completes; often none, never half of one.</returns>
    /// <exception cref="ArgumentException">The token is not in the vocabulary.</exception>
    public string Push(int token) => new(Next(token));

    /// <summary>No token follows: an incomplete character becomes U+FFFD. What is pushed afterwards is another text.</summary>
    /// <returns>The rest of the text.</returns>
    public string End()
    {
        _atStart = true;
        return new(Decode([], flush: true));
    }

    /// <summary>As <see cref="Push"/>, valid until the next call.</summary>
    internal ReadOnlySpan<char> Next(int token)
    {
        ReadOnlySpan<byte> bytes = _tokenizer.Bytes(token).Span;
        if (bytes.IsEmpty) return [];
        if (_atStart) bytes = _tokenizer.FirstBytes(token).Span;
        _atStart = false;
        return Decode(bytes, flush: false);
    }

    private ReadOnlySpan<char> Decode(ReadOnlySpan<byte> bytes, bool flush)
    {
        // Bytes held back from earlier calls count too: at most three.
        int most = Encoding.UTF8.GetMaxCharCount(bytes.Length + 3);
        if (_chars.Length < most) _chars = new char[most];
        return _chars.AsSpan(0, _utf8.GetChars(bytes, _chars, flush));
    }
}
