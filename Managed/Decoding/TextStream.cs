using System.Text;

namespace Treeline;

/// <summary>The characters of a text that grows by tokens: whole characters only, ends before a stop string, holds back what may be the beginning of one.</summary>
internal sealed class TextStream
{
    private readonly IReadOnlyList<string> _stops;
    private readonly int _known;                            // vocabularies are padded: ids from here on stand for no text
    private readonly StreamingDetokenizer _characters;
    private readonly StringBuilder _text = new();           // decoded, not yet taken
    private int _ready;                                     // characters of _text that no stop string can claim any more

    /// <param name="tokenizer">Whose tokens come.</param>
    /// <param name="stops">Stop strings, none of them empty.</param>
    /// <param name="continues">True where the text goes on with a prompt's.</param>
    public TextStream(TextTokenizer tokenizer, IReadOnlyList<string> stops, bool continues = false)
    {
        _characters = new StreamingDetokenizer(tokenizer, continues);
        _stops = stops;
        _known = tokenizer.VocabularySize;
    }

    /// <summary>Number of characters given out so far.</summary>
    public int Taken { get; private set; }

    /// <summary>Adds a token's characters; true where they complete a stop string (the text then ends before it).</summary>
    public bool Push(int token)
    {
        if (token >= _known) return false;
        _text.Append(_characters.Next(token));
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
        _text.Append(_characters.End());
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

    /// <summary>Where the first stop string begins; everything before <see cref="_ready"/> has been searched.</summary>
    private int? FindStop()
    {
        for (int at = _ready; at < _text.Length; at++)
            foreach (string stop in _stops)
                if (!IsInsidePair(at) && Matches(at, stop) == stop.Length) return at;
        return null;
    }

    /// <summary>Characters at the end that a stop string may begin with.</summary>
    private int HeldBack()
    {
        for (int at = _ready; at < _text.Length; at++)
            foreach (string stop in _stops)
                if (!IsInsidePair(at) && at + Matches(at, stop) == _text.Length) return _text.Length - at;
        return 0;
    }

    // A stop string may begin with half a character; the text ends between two all the same.
    private bool IsInsidePair(int at) => char.IsLowSurrogate(_text[at]);

    private int Matches(int at, string stop)
    {
        int count = 0;
        while (count < stop.Length && at + count < _text.Length && _text[at + count] == stop[count]) count++;
        return count;
    }
}
