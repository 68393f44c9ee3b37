using System.Text;
using System.Text.RegularExpressions;
using Microsoft.ML.Tokenizers;

namespace Treeline;

/// <summary>Byte-level BPE, as GPT-2 and LLaMA 3 have it: every text is a sequence of its tokens.</summary>
internal sealed class ByteLevelTokenizer : TextTokenizer
{
    private readonly ByteLevelModel _model;
    private readonly BpeTokenizer _bpe;
    private readonly AddedTokens _added;
    private readonly Dictionary<int, byte[]> _bytes = [];

    public ByteLevelTokenizer(ByteLevelModel model)
    {
        _model = model;
        CheckMerges();
        _added = new AddedTokens(model.Added);
        foreach ((string name, int id) in model.Vocabulary)
            if (!_bytes.TryAdd(id, ByteAlphabet.Read(name))) throw new CheckpointException(model.File, null, $"token {id} has two names, one of them '{name}'");
        _bpe = BpeTokenizer.Create(new BpeOptions(model.Vocabulary) { ByteLevel = true, Merges = model.Merges.Select(merge => $"{merge.Left} {merge.Right}") });
        foreach (AddedToken token in model.Added) _bytes[token.Id] = Encoding.UTF8.GetBytes(token.Text);
        foreach (int frame in model.Before.Concat(model.After))
        {
            if (!_bytes.ContainsKey(frame)) throw new CheckpointException(model.File, null, $"token {frame}, which goes before or after each text, is not in the vocabulary");
            _bytes[frame] = [];
        }

        VocabularySize = _bytes.Keys.Max() + 1;
    }

    public override int VocabularySize { get; }

    public override int[] Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<int> tokens = [.. _model.Before];
        foreach ((string part, int token) in _added.Split(TokenizerText.WellFormed(text)))
        {
            if (token >= 0) tokens.Add(token);
            else EncodePart(_model.AddsPrefixSpace && part[0] != ' ' ? " " + part : part, tokens);
        }

        tokens.AddRange(_model.After);
        return [.. tokens];
    }

    public override ReadOnlyMemory<byte> Bytes(int token) =>
        _bytes.TryGetValue(token, out byte[]? bytes) ? bytes : throw TokenizerText.UnknownToken(token, VocabularySize);

    private void EncodePart(string text, List<int> tokens)
    {
        CheckBytes(text);
        List<(int Start, int Length)> pieces = [(0, text.Length)];
        try
        {
            foreach (TextSplitter splitter in _model.Splitters) pieces = splitter.Split(text, pieces);
        }
        catch (RegexMatchTimeoutException e)
        {
            throw new CheckpointException(_model.File, null, $"its pattern does not come to an end on the text: {e.Pattern}", e);
        }

        foreach ((int start, int length) in pieces)
        {
            ReadOnlySpan<char> piece = text.AsSpan(start, length);
            if (_model.IgnoresMerges && _model.Vocabulary.TryGetValue(ByteAlphabet.Write(piece), out int whole)) tokens.Add(whole);
            else tokens.AddRange(_bpe.EncodeToIds(piece, considerPreTokenization: false, considerNormalization: false));
        }
    }

    // The library would drop what it has no token for.
    private void CheckBytes(string text)
    {
        Span<byte> bytes = stackalloc byte[4];
        foreach (Rune rune in text.EnumerateRunes())
        {
            int length = rune.EncodeToUtf8(bytes);
            foreach (byte value in bytes[..length])
                if (!_model.Vocabulary.ContainsKey(TokenizerText.Letter(ByteAlphabet.Character(value))))
                    throw new ArgumentException($"text: the vocabulary has no token for byte 0x{value:x2} of {TokenizerText.Shown(rune)}", nameof(text));
        }
    }

    private void CheckMerges()
    {
        if (_model.Vocabulary.Count == 0) throw new CheckpointException(_model.File, null, "its vocabulary is empty");
        var seen = new HashSet<(string, string)>();
        foreach ((string left, string right) in _model.Merges)
        {
            foreach (string name in (ReadOnlySpan<string>)[left, right, left + right])
                if (!_model.Vocabulary.ContainsKey(name)) throw new CheckpointException(_model.File, null, $"the merge of '{left}' and '{right}': '{name}' is not in the vocabulary");
            if (!seen.Add((left, right))) throw new CheckpointException(_model.File, null, $"the merge of '{left}' and '{right}' is listed twice");
        }
    }
}
