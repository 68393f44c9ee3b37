using Google.Protobuf;

namespace Treeline.Tests.Managed;

/// <summary>Writes small SentencePiece models (sentencepiece_model.proto, by its field numbers).</summary>
internal sealed class SentencePieceFile
{
    private readonly List<(string Text, float Score, int Type)> _pieces = [];

    /// <summary>LLaMA's beginning: unknown, BOS, EOS, the 256 bytes.</summary>
    public static SentencePieceFile Llama(bool bytes = true)
    {
        var file = new SentencePieceFile { ByteFallback = bytes };
        file.Add("<unk>", 0, 2).Add("<s>", 0, 3).Add("</s>", 0, 3);
        for (int value = 0; bytes && value < 256; value++) file.Add($"<0x{value:X2}>", 0, 6);
        return file;
    }

    public int Algorithm { get; set; } = 2;

    public bool ByteFallback { get; set; }

    public bool AddSpace { get; set; } = true;

    public bool DropSpaces { get; set; }

    public bool Escape { get; set; } = true;

    public bool SpaceAtEnd { get; set; }

    public int UnknownId { get; set; }

    public byte[] CharacterMap { get; set; } = [];

    public int Count => _pieces.Count;

    public SentencePieceFile Add(string text, float score = 0, int type = 1)
    {
        _pieces.Add((text, score, type));
        return this;
    }

    /// <summary>Pieces in the order of their merges: the first is merged first.</summary>
    public SentencePieceFile Merges(params string[] texts)
    {
        foreach (string text in texts) Add(text, -_pieces.Count);
        return this;
    }

    public byte[] ToBytes() => Message(output =>
    {
        foreach ((string text, float score, int type) in _pieces)
            Inner(output, 1, piece =>
            {
                piece.WriteTag(1, WireFormat.WireType.LengthDelimited);
                piece.WriteString(text);
                piece.WriteTag(2, WireFormat.WireType.Fixed32);
                piece.WriteFloat(score);
                Number(piece, 3, type);
            });
        Inner(output, 2, trainer =>
        {
            Number(trainer, 3, Algorithm);
            Number(trainer, 24, SpaceAtEnd ? 1 : 0);
            Number(trainer, 35, ByteFallback ? 1 : 0);
            Number(trainer, 40, UnknownId);
        });
        Inner(output, 3, normalizer =>
        {
            if (CharacterMap.Length > 0)
            {
                normalizer.WriteTag(2, WireFormat.WireType.LengthDelimited);
                normalizer.WriteBytes(ByteString.CopyFrom(CharacterMap));
            }

            Number(normalizer, 3, AddSpace ? 1 : 0);
            Number(normalizer, 4, DropSpaces ? 1 : 0);
            Number(normalizer, 5, Escape ? 1 : 0);
        });
    });

    private static void Number(CodedOutputStream output, int field, int value)
    {
        output.WriteTag(field, WireFormat.WireType.Varint);
        output.WriteInt32(value);
    }

    private static void Inner(CodedOutputStream output, int field, Action<CodedOutputStream> write)
    {
        output.WriteTag(field, WireFormat.WireType.LengthDelimited);
        output.WriteBytes(ByteString.CopyFrom(Message(write)));
    }

    private static byte[] Message(Action<CodedOutputStream> write)
    {
        using var stream = new MemoryStream();
        var output = new CodedOutputStream(stream);
        write(output);
        output.Flush();
        return stream.ToArray();
    }
}
