using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Google.Protobuf;
using Library = Microsoft.ML.Tokenizers;

namespace Treeline;

/// <summary>SentencePiece's BPE, as LLaMA 1 and 2 have it.</summary>
internal sealed partial class SentencePieceTokenizer : TextTokenizer
{
    public const string FileName = "tokenizer.model";

    // How a space is written in a piece; and what an unknown piece looks like in a text.
    private const char Space = '\u2581';
    private const string Unknown = " \u2047 ";

    // Larger than any model's; the file is read as a whole.
    private const long MaxLength = 256L << 20;

    // Appended to a message: empty trainer_spec and normalizer_spec. Parts that are there stay as they are; the library needs both.
    private static readonly byte[] EmptySpecs = [0x12, 0, 0x1a, 0];

    private readonly SentencePieceModel _model;
    private readonly Library.SentencePieceTokenizer _pieces;
    private readonly AddedTokens _special;
    private readonly AddedTokens _userDefined;
    private readonly Dictionary<int, byte[]> _bytes = [];
    private readonly HashSet<int> _spaced = [];             // tokens that begin with a space
    private readonly int[] _before = [], _after = [];
    private readonly bool _spaceAfterSpecial;
    private readonly int _unknown;

    private SentencePieceTokenizer(string file, byte[] bytes, SentencePieceModel model, TokenizerConfig config)
    {
        _model = model;
        _pieces = CreateLibrary(file, bytes);
        var ids = new Dictionary<string, int>();
        var userDefined = new List<AddedToken>();
        List<AddedToken> special = [];
        for (int i = 0; i < model.Pieces.Count; i++)
        {
            (string text, PieceType type) = model.Pieces[i];
            if (type == PieceType.Control) special.Add(new AddedToken(text, i));
            if (type == PieceType.UserDefined) userDefined.Add(new AddedToken(text, i));
            if (type == PieceType.Unknown) _unknown = i;
            if (type is not (PieceType.Control or PieceType.Unknown or PieceType.Byte) && text[0] == Space) _spaced.Add(i);
            ids.Add(text, i);
            _bytes.Add(i, BytesOf(file, text, type));
        }

        special.AddRange(config.Added(ids));
        // Tokens that were added after the model was trained; those that are its own stay what they are.
        foreach (AddedToken token in special) _bytes.TryAdd(token.Id, Encoding.UTF8.GetBytes(token.Text));
        _special = new AddedTokens(special.Where(token => token.Id != _unknown));
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

        return new SentencePieceTokenizer(file, bytes, SentencePieceModel.Read(file, bytes), new TokenizerConfig(folder));
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

    private static Library.SentencePieceTokenizer CreateLibrary(string file, byte[] bytes)
    {
        try
        {
            using var stream = new MemoryStream([.. bytes, .. EmptySpecs]);
            return Library.SentencePieceTokenizer.Create(stream, addBeginningOfSentence: false, addEndOfSentence: false, specialTokens: null);
        }
        catch (Exception e) when (e is InvalidProtocolBufferException or ArgumentException or InvalidOperationException or NotSupportedException)
        {
            throw new CheckpointException(file, null, $"no SentencePiece model: {e.Message}", e);
        }
    }

    private static byte[] BytesOf(string file, string text, PieceType type) => type switch
    {
        PieceType.Control => [],
        PieceType.Unknown => Encoding.UTF8.GetBytes(Unknown),
        PieceType.Byte => text is ['<', '0', 'x', _, _, '>'] && byte.TryParse(text.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value)
            ? [value]
            : throw new CheckpointException(file, null, $"byte piece '{text}': expected <0x00> to <0xFF>"),
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
            if (token >= 0)
            {
                tokens.Add(token);
                continue;
            }

            IReadOnlyList<int> ids = _pieces.EncodeToIds(part, addBeginningOfSentence: false, addEndOfSentence: false, considerPreTokenization: false, considerNormalization: false);
            if (ids.Contains(_unknown)) throw Unencodable(part);
            tokens.AddRange(ids);
        }
    }

    private ArgumentException Unencodable(string text)
    {
        var tokens = _pieces.EncodeToTokens(text, out _, addBeginningOfSentence: false, addEndOfSentence: false, considerPreTokenization: false, considerNormalization: false);
        Rune rune = Rune.GetRuneAt(text, tokens.First(token => token.Id == _unknown).Offset.Start.Value);
        return new ArgumentException($"text: the vocabulary has no token for {TokenizerText.Shown(rune.Value == Space ? new Rune(' ') : rune)}", nameof(text));
    }

    [GeneratedRegex(" {2,}")]
    private static partial Regex Spaces();
}
