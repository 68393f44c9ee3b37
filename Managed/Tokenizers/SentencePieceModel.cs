using System.Globalization;
using Google.Protobuf;

namespace Treeline;

/// <summary>What a piece of a SentencePiece model is; the format's numbers.</summary>
internal enum PieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// <summary>A piece of a SentencePiece model.</summary>
/// <param name="Text">Its characters, spaces as <see cref="SentencePieceModel.Space"/>.</param>
/// <param name="Type">What it is.</param>
/// <param name="Score">The higher, the sooner it is merged.</param>
internal readonly record struct SentencePiece(string Text, PieceType Type, float Score);

/// <summary>What a SentencePiece file says; settings that would change the tokens and are not known are refused by name.</summary>
/// <remarks>Format: <c>sentencepiece_model.proto</c>; fields 1 pieces, 2 trainer_spec, 3 normalizer_spec.</remarks>
internal sealed class SentencePieceModel
{
    /// <summary>How a space is written in a piece.</summary>
    public const char Space = '\u2581';

    private const int Bpe = 2;

    private readonly string _file;
    private readonly List<SentencePiece> _pieces = [];
    private int _algorithm = 1;
    private string _bos = "<s>", _eos = "</s>";
    private bool _spaceAtEnd, _escapes = true;
    private int _characterMap;

    private SentencePieceModel(string file) => _file = file;

    /// <summary>Token i is piece i.</summary>
    public IReadOnlyList<SentencePiece> Pieces => _pieces;

    /// <summary>The tokens of the 256 bytes; −1 where it has none.</summary>
    public int[] ByteTokens { get; } = [.. Enumerable.Repeat(-1, 256)];

    /// <summary>Whether characters without a piece are written as bytes.</summary>
    public bool HasByteFallback { get; private set; }

    /// <summary>Whether a text gets a space in front.</summary>
    public bool AddsSpace { get; private set; } = true;

    /// <summary>Whether spaces at the ends, and all but one of several in a row, are dropped.</summary>
    public bool DropsSpaces { get; private set; } = true;

    /// <summary>The token of what it has no piece for.</summary>
    public int Unknown { get; private set; }

    /// <summary>The token that begins a text; −1 where the model has none.</summary>
    public int Bos { get; private set; }

    /// <summary>The token that ends a text; −1 where the model has none.</summary>
    public int Eos { get; private set; }

    /// <exception cref="CheckpointException">It is damaged, or of a kind that is not supported.</exception>
    public static SentencePieceModel Read(string file, byte[] bytes)
    {
        var model = new SentencePieceModel(file);
        try
        {
            Each(new CodedInputStream(bytes), model.ReadModel);
        }
        catch (InvalidProtocolBufferException e)
        {
            throw new CheckpointException(file, null, $"no SentencePiece model: {e.Message}", e);
        }

        model.Check();
        return model;
    }

    private static void Each(CodedInputStream input, Func<int, CodedInputStream, bool> read)
    {
        while (input.ReadTag() is var tag and not 0)
            if (!read(WireFormat.GetTagFieldNumber(tag), input)) input.SkipLastField();
    }

    private bool ReadModel(int field, CodedInputStream input)
    {
        switch (field)
        {
            case 1: ReadPiece(Inside(input)); return true;
            case 2: Each(Inside(input), ReadTrainer); return true;
            case 3: Each(Inside(input), ReadNormalizer); return true;
            default: return false;
        }
    }

    private static CodedInputStream Inside(CodedInputStream input) => input.ReadBytes().CreateCodedInput();

    private void ReadPiece(CodedInputStream input)
    {
        (string text, int type, float score) = ("", (int)PieceType.Normal, 0f);
        Each(input, (field, piece) =>
        {
            switch (field)
            {
                case 1: text = piece.ReadString(); return true;
                case 2: score = piece.ReadFloat(); return true;
                case 3: type = piece.ReadEnum(); return true;
                default: return false;
            }
        });
        _pieces.Add(new SentencePiece(text, (PieceType)type, score));
    }

    private bool ReadTrainer(int field, CodedInputStream input)
    {
        switch (field)
        {
            case 3: _algorithm = input.ReadEnum(); return true;
            case 24: _spaceAtEnd = input.ReadBool(); return true;
            case 35: HasByteFallback = input.ReadBool(); return true;
            case 40: Unknown = input.ReadInt32(); return true;
            case 46: _bos = input.ReadString(); return true;
            case 47: _eos = input.ReadString(); return true;
            default: return false;
        }
    }

    private bool ReadNormalizer(int field, CodedInputStream input)
    {
        switch (field)
        {
            case 2: _characterMap = input.ReadBytes().Length; return true;
            case 3: AddsSpace = input.ReadBool(); return true;
            case 4: DropsSpaces = input.ReadBool(); return true;
            case 5: _escapes = input.ReadBool(); return true;
            default: return false;
        }
    }

    private void Check()
    {
        if (_pieces.Count == 0) throw Bad("no SentencePiece model: it has no pieces");
        if (_algorithm != Bpe) throw Bad($"its algorithm {_algorithm switch { 1 => "Unigram", 3 => "Word", 4 => "Char", _ => _algorithm }} is not supported; supported is BPE");
        if (_characterMap > 0) throw Bad("its map of characters (precompiled_charsmap) is not supported; supported are models that take texts as they are");
        if (_spaceAtEnd) throw Bad("treat_whitespace_as_suffix is not supported");
        if (!_escapes) throw Bad("escape_whitespaces = false is not supported");

        var ids = new Dictionary<string, int>();
        for (int i = 0; i < _pieces.Count; i++)
        {
            (string text, PieceType type, float score) = _pieces[i];
            if (text.Length == 0) throw Bad($"piece {i} is empty");
            if (!Enum.IsDefined(type)) throw Bad($"piece {i} '{text}' is of the unknown type {(int)type}");
            if (!float.IsFinite(score)) throw Bad($"piece {i} '{text}' has the score {score}");
            if (type == PieceType.Byte) AddByte(text, i);
            if (!ids.TryAdd(text, i)) throw Bad($"piece {i} '{text}' is listed twice");
        }

        if ((uint)Unknown >= (uint)_pieces.Count || _pieces[Unknown].Type != PieceType.Unknown) throw Bad($"unk_id {Unknown} is not that of its unknown piece");
        if (_pieces.Count(piece => piece.Type == PieceType.Unknown) != 1) throw Bad("expected one unknown piece");
        Bos = ids.GetValueOrDefault(_bos, -1);
        Eos = ids.GetValueOrDefault(_eos, -1);
        if (HasByteFallback && Array.IndexOf(ByteTokens, -1) is >= 0 and var missing) throw Bad($"byte_fallback: piece <0x{missing:X2}> is missing");
    }

    private void AddByte(string text, int token)
    {
        if (text is not ['<', '0', 'x', _, _, '>'] || !byte.TryParse(text.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value))
            throw Bad($"byte piece '{text}': expected <0x00> to <0xFF>");
        if (ByteTokens[value] >= 0) throw Bad($"byte piece '{text}': that byte has one already");
        ByteTokens[value] = token;
    }

    private CheckpointException Bad(string message) => new(_file, null, message);
}
