using System.Text;
using System.Text.RegularExpressions;

namespace Treeline;

/// <summary>SentencePiece's BPE, as LLaMA 1 and 2 have it.</summary>
internal sealed partial class SentencePieceTokenizer : TextTokenizer
{
    public const string FileName = "tokenizer.model";

    private const char Space = SentencePieceModel.Space;

    // What an unknown piece looks like in a text.
    private const string Unknown = " \u2047 ";

    // Larger than any model's; the file is read as a whole.
    private const long MaxLength = 256L << 20;

    private readonly SentencePieceModel _model;
    private readonly SentencePieceBpe _pieces;
    private readonly AddedTokens _special;
    private readonly AddedTokens _userDefined;
    private readonly Dictionary<int, byte[]> _bytes = [];
    private readonly HashSet<int> _spaced = [];             // tokens that begin with a space
    private readonly int[] _before = [], _after = [];
    private readonly bool _spaceAfterSpecial;

    private SentencePieceTokenizer(string file, SentencePieceModel model, TokenizerConfig config)
    {
        _model = model;
        _pieces = new SentencePieceBpe(model);
        var ids = new Dictionary<string, int>();
        var userDefined = new List<AddedToken>();
        List<AddedToken> special = [];
        for (int i = 0; i < model.Pieces.Count; i++)
        {
            (string text, PieceType type, _) = model.Pieces[i];
            if (type == PieceType.Control) special.Add(new AddedToken(text, i));
            if (type == PieceType.UserDefined) userDefined.Add(new AddedToken(text, i));
            if (type is not (PieceType.Control or PieceType.Unknown or PieceType.Byte) && text[0] == Space) _spaced.Add(i);
            ids.Add(text, i);
            _bytes.Add(i, BytesOf(text, type, type == PieceType.Byte ? Array.IndexOf(model.ByteTokens, i) : -1));
        }

        special.AddRange(config.Added(ids));
        // Tokens that were added after the model was trained; those that are its own stay what they are.
        foreach (AddedToken token in special) _bytes.TryAdd(token.Id, Encoding.UTF8.GetBytes(token.Text));
        _special = new AddedTokens(special.Where(token => token.Id != model.Unknown));
        _userDefined = new AddedTokens(userDefined);
        VocabularySize = _bytes.Keys.Max() + 1;
        _spaceAfterSpecial = config.Legacy ?? true;
        if (config.AddsBos ?? true) _before = [Frame(model.Bos, "BOS")];
        if (config.AddsEos ?? false) _after = [Frame(model.Eos, "EOS")];

        int Frame(int token, string name) => token >= 0 ? token : throw new CheckpointException(file, null, $"it has no {name} piece, which tokenizer_config.json wants at each text");
    }

    public override int VocabularySize { get; }

    /// <exception cref="CheckpointException">It is damaged, or of a kind that is not supported.</exception>
    public static SentencePieceTokenizer Read(string folder)
    {
        string file = Path.Combine(folder, FileName);
        byte[] bytes;
        try
        {
            if (new FileInfo(file).Length > MaxLength) throw new CheckpointException(file, null, $"more bytes than any such file has (at most {MaxLength})");
            bytes = File.ReadAllBytes(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CheckpointException(file, null, e.Message, e);
        }

        return new SentencePieceTokenizer(file, SentencePieceModel.Read(file, bytes), new TokenizerConfig(folder));
    }

    public override int[] Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<int> tokens = [.. _before];
        bool first = true;
        foreach ((string part, int token) in _special.Split(TokenizerText.WellFormed(text)))
        {
            if (token >= 0) tokens.Add(token);
            else EncodePart(part, first || _spaceAfterSpecial, tokens);
            first = false;
        }

        tokens.AddRange(_after);
        return [.. tokens];
    }

    public override ReadOnlyMemory<byte> Bytes(int token) =>
        _bytes.TryGetValue(token, out byte[]? bytes) ? bytes : throw TokenizerText.UnknownToken(token, VocabularySize);

    public override ReadOnlyMemory<byte> FirstBytes(int token)
    {
        ReadOnlyMemory<byte> bytes = Bytes(token);
        return _model.AddsSpace && _spaced.Contains(token) ? bytes[1..] : bytes;
    }

    private static byte[] BytesOf(string text, PieceType type, int value) => type switch
    {
        PieceType.Control => [],
        PieceType.Unknown => Encoding.UTF8.GetBytes(Unknown),
        PieceType.Byte => [(byte)value],
        _ => Encoding.UTF8.GetBytes(text.Replace(Space, ' ')),
    };

    // SentencePiece's normalisation, then its pieces; user-defined ones first, which merge with nothing.
    private void EncodePart(string text, bool addSpace, List<int> tokens)
    {
        if (_model.DropsSpaces) text = Spaces().Replace(text.Trim(' '), " ");
        if (text.Length == 0) return;
        if (_model.AddsSpace && addSpace) text = " " + text;
        foreach ((string part, int token) in _userDefined.Split(text.Replace(' ', Space)))
        {
            if (token >= 0) tokens.Add(token);
            else _pieces.Encode(part, tokens);
        }
    }

    [GeneratedRegex(" {2,}")]
    private static partial Regex Spaces();
}
