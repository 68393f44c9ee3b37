using System.Text;

namespace Treeline;

/// <summary>The characters of a text that grows by tokens: whole characters only, ends before a stop string, holds back what may be the beginning of one.</summary>
internal sealed class TextStream
{
    private readonly TextTokenizer _tokenizer;
    private readonly IReadOnlyList<string> _stops;
    private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _text = new();           // decoded, not yet taken
    private char[] _chars = new char[64];
    private int _ready;                                     // characters of _text that no stop string can claim any more

    public TextStream(TextTokenizer tokenizer, IReadOnlyList<string> stops)
    {
        _tokenizer = tokenizer;
        _stops = stops;
    }

    /// <summary>Number of characters given out so far.</summary>
    public int Taken { get; private set; }

    /// <summary>Adds a token's characters; true where they complete a stop string (the text then ends before it).</summary>
    public bool Push(int token)
    {
        Decode(_tokenizer.Bytes(token).Span, flush: false);
        if (FindStop() is int stop)
        {
            _text.Length = stop;
            _ready = stop;
            return true;
        }

        _ready = _text.Length - HeldBack();
        return false;
    }

    /// <summary>No token follows: what was held back is text after all; an incomplete character becomes U+FFFD.</summary>
    public void End()
    {
        Decode([], flush: true);
        _ready = _text.Length;
    }

    /// <summary>The text since the last call.</summary>
    public string Take()
    {
        if (_ready == 0) return "";
        string text = _text.ToString(0, _ready);
        _text.Remove(0, _ready);
        Taken += _ready;
        _ready = 0;
        return text;
    }

    /// <summary>Drops characters that were given out elsewhere, before a fork or a snapshot.</summary>
    public void Skip(int characters)
    {
        characters = Math.Min(characters, _text.Length);
        _text.Remove(0, characters);
        _ready = Math.Max(0, _ready - characters);
        Taken += characters;
    }

    private void Decode(ReadOnlySpan<byte> bytes, bool flush)
    {
        int most = Encoding.UTF8.GetMaxCharCount(bytes.Length);
        if (_chars.Length < most) _chars = new char[most];
        int count = _utf8.GetChars(bytes, _chars, flush);
        _text.Append(_chars, 0, count);
    }

    /// <summary>Where the first stop string begins; everything before <see cref="_ready"/> has been searched.</summary>
    private int? FindStop()
    {
        for (int at = _ready; at < _text.Length; at++)
            foreach (string stop in _stops)
                if (Matches(at, stop) == stop.Length) return at;
        return null;
    }

    /// <summary>Characters at the end that a stop string may begin with.</summary>
    private int HeldBack()
    {
        for (int at = _ready; at < _text.Length; at++)
            foreach (string stop in _stops)
                if (at + Matches(at, stop) == _text.Length) return _text.Length - at;
        return 0;
    }

    private int Matches(int at, string stop)
    {
        int count = 0;
        while (count < stop.Length && at + count < _text.Length && _text[at + count] == stop[count]) count++;
        return count;
    }
}
