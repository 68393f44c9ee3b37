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

/// <summary>What a SentencePiece file says beside what the library shows: the kinds of its pieces, and settings that it must not have.</summary>
/// <remarks>Format: <c>sentencepiece_model.proto</c>; fields 1 pieces, 2 trainer_spec, 3 normalizer_spec.</remarks>
internal sealed class SentencePieceModel
{
    private const int Bpe = 2;

    private readonly string _file;
    private readonly List<(string Text, PieceType Type)> _pieces = [];
    private int _algorithm = 1;
    private int _unknown;
    private string _bos = "<s>", _eos = "</s>";
    private bool _spaceAtEnd, _escapes = true;
    private int _characterMap;

    private SentencePieceModel(string file) => _file = file;

    /// <summary>Token i is piece i.</summary>
    public IReadOnlyList<(string Text, PieceType Type)> Pieces => _pieces;

    /// <summary>Whether characters without a piece are written as bytes.</summary>
    public bool HasByteFallback { get; private set; }

    /// <summary>Whether a text gets a space in front.</summary>
    public bool AddsSpace { get; private set; } = true;

    /// <summary>Whether spaces at the ends, and all but one of several in a row, are dropped.</summary>
    public bool DropsSpaces { get; private set; } = true;

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
        (string text, int type) = ("", (int)PieceType.Normal);
        Each(input, (field, piece) =>
        {
            switch (field)
            {
                case 1: text = piece.ReadString(); return true;
                case 3: type = piece.ReadEnum(); return true;
                default: return false;
            }
        });
        _pieces.Add((text, (PieceType)type));
    }

    private bool ReadTrainer(int field, CodedInputStream input)
    {
        switch (field)
        {
            case 3: _algorithm = input.ReadEnum(); return true;
            case 24: _spaceAtEnd = input.ReadBool(); return true;
            case 35: HasByteFallback = input.ReadBool(); return true;
            case 40: _unknown = input.ReadInt32(); return true;
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
            (string text, PieceType type) = _pieces[i];
            if (text.Length == 0) throw Bad($"piece {i} is empty");
            if (!Enum.IsDefined(type)) throw Bad($"piece {i} '{text}' is of the unknown type {(int)type}");
            if (!ids.TryAdd(text, i)) throw Bad($"piece {i} '{text}' is listed twice");
        }

        if ((uint)_unknown >= (uint)_pieces.Count || _pieces[_unknown].Type != PieceType.Unknown) throw Bad($"unk_id {_unknown} is not that of its unknown piece");
        if (_pieces.Count(piece => piece.Type == PieceType.Unknown) != 1) throw Bad("expected one unknown piece");
        Bos = ids.GetValueOrDefault(_bos, -1);
        Eos = ids.GetValueOrDefault(_eos, -1);
        if (HasByteFallback) CheckBytes();
    }

    // The library counts from the first.
    private void CheckBytes()
    {
        int first = _pieces.FindIndex(piece => piece.Type == PieceType.Byte);
        for (int value = 0; value < 256; value++)
            if (first < 0 || first + value >= _pieces.Count || _pieces[first + value] != ($"<0x{value:X2}>", PieceType.Byte)) throw Bad($"byte_fallback: expected pieces <0x00> to <0xFF> in a row, <0x{value:X2}> is not where it should be");
    }

    private CheckpointException Bad(string message) => new(_file, null, message);
}
