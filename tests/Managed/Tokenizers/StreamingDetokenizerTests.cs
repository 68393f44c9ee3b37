using System.Text;
using Treeline.Tests.Architecture;
using Treeline.Tests.Managed.Decoding;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class StreamingDetokenizerTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public static TheoryData<string> Kinds => ["shipped", "sentencepiece", "no dummy space", "bytes"];

    public void Dispose() => _folder.Dispose();

    [Theory, MemberData(nameof(Kinds))]
    public void Pieces_are_whole_characters_and_together_the_text(string kind)
    {
        TextTokenizer tokenizer = Open(kind);
        var random = new Random(11);
        for (int round = 0; round < 2000; round++)
        {
            int[] tokens = RandomTokens(tokenizer, random);
            byte[] bytes = [.. tokens.SelectMany(token => tokenizer.Bytes(token).ToArray())];
            int space = 0;
            if (Array.Find(tokens, token => !tokenizer.Bytes(token).IsEmpty) is var first && bytes.Length > 0) space = tokenizer.Bytes(first).Length - tokenizer.FirstBytes(first).Length;
            string expected = Encoding.UTF8.GetString(bytes.AsSpan(space));
            Assert.Equal(expected, tokenizer.Decode(tokens));

            var stream = new StreamingDetokenizer(tokenizer);
            var text = new StringBuilder();
            for (int i = 0; i < tokens.Length; i++)
            {
                string piece = stream.Push(tokens[i]);
                AssertWhole(piece);
                text.Append(piece);
                AssertNothingCertainIsHeldBack(bytes.AsSpan(space), tokens[..(i + 1)].Sum(token => tokenizer.Bytes(token).Length) - space, text.ToString());
            }

            text.Append(stream.End());
            Assert.Equal(expected, text.ToString());
        }
    }

    [Theory, MemberData(nameof(Kinds))]
    public void A_text_stream_gives_the_same_pieces(string kind)
    {
        TextTokenizer tokenizer = Open(kind);
        var random = new Random(13);
        for (int round = 0; round < 500; round++)
        {
            int[] tokens = RandomTokens(tokenizer, random);
            // The stop string never comes, but its beginnings do.
            var stream = new TextStream(tokenizer, ["\ufffd\ufffd\0never", "aaaa\0"]);
            var text = new StringBuilder();
            foreach (int token in tokens)
            {
                Assert.False(stream.Push(token));
                string piece = stream.Take();
                AssertWhole(piece);
                text.Append(piece);
            }

            stream.End();
            text.Append(stream.Take());
            Assert.Equal(tokenizer.Decode(tokens), text.ToString());
        }
    }

    [Fact]
    public void A_broken_character_is_given_out_as_soon_as_it_is_certain()
    {
        var stream = new StreamingDetokenizer(Open("bytes"));
        Assert.Equal("", stream.Push(0xe2));
        Assert.Equal("", stream.Push(0x82));
        Assert.Equal("€", stream.Push(0xac));
        Assert.Equal("\ufffd", stream.Push(0x80));
        Assert.Equal("\ufffd", stream.Push(0xff));
        Assert.Equal("", stream.Push(0xf0));
        Assert.Equal("", stream.Push(0x9f));
        Assert.Equal("\ufffda", stream.Push('a'));
        Assert.Equal("", stream.Push(0xed));
        Assert.Equal("\ufffd\ufffd", stream.Push(0xa0));
        Assert.Equal("", stream.Push(0xf0));
        Assert.Equal("\ufffd", stream.Push(0xf0));
        Assert.Equal("\ufffd", stream.End());
        Assert.Equal("", stream.End());
    }

    [Fact]
    public void A_stop_string_of_half_a_pair_splits_no_pair()
    {
        var stream = new TextStream(Open("bytes"), ["\ude00", "\ude00x"]);
        foreach (byte value in "a😀"u8) Assert.False(stream.Push(value));
        Assert.Equal("a😀", stream.Take());
    }

    [Fact]
    public void Tokens_that_pad_a_vocabulary_are_no_text()
    {
        TextTokenizer tokenizer = Open("shipped");
        var stream = new TextStream(tokenizer, ["stop"]);
        Assert.False(stream.Push(tokenizer.Encode("a")[0]));
        Assert.False(stream.Push(tokenizer.VocabularySize));
        Assert.Equal("a", stream.Take());
        Assert.Throws<ArgumentException>(() => new StreamingDetokenizer(tokenizer).Push(tokenizer.VocabularySize));
    }

    private TextTokenizer Open(string kind)
    {
        if (kind == "shipped") return TextTokenizer.Load(Path.Combine(Sources.Root, "models", "shakespeare-2m"))!;
        if (kind == "bytes") return new ToyTokenizer([.. Enumerable.Range(0, 256).Select(value => new[] { (byte)value })]);
        SentencePieceFile file = SentencePieceTests.Small().Merges("😀", "▁€");
        file.AddSpace = kind == "sentencepiece";
        _folder.Write("tokenizer.model", file.ToBytes());
        return TextTokenizer.Load(_folder.Path)!;
    }

    // Single bytes of characters often, so that whole ones come about too.
    private static int[] RandomTokens(TextTokenizer tokenizer, Random random)
    {
        int[] byteTokens = new int[256];
        for (int token = tokenizer.VocabularySize - 1; token >= 0; token--)
            if (tokenizer.Bytes(token).Span is [byte one]) byteTokens[one] = token;
        var tokens = new List<int>();
        int count = random.Next(12);
        while (tokens.Count < count)
        {
            if (random.Next(2) == 0) tokens.Add(random.Next(tokenizer.VocabularySize));
            else foreach (byte value in Encoding.UTF8.GetBytes(RandomTexts.Next(random, 1))) tokens.Add(byteTokens[value]);
        }

        return [.. tokens];
    }

    private static void AssertWhole(string piece) => Assert.Equal(piece, TokenizerText.WellFormed(piece));

    // What is held back must be a beginning of a character: with the right bytes it becomes one.
    private static void AssertNothingCertainIsHeldBack(ReadOnlySpan<byte> bytes, int given, string text)
    {
        if (given <= 0) return;
        ReadOnlySpan<byte> so = bytes[..given];
        int held = 0;
        for (int length = 1; length <= Math.Min(3, so.Length); length++)
            if (Rune.DecodeFromUtf8(so[^length..], out _, out int used) == System.Buffers.OperationStatus.NeedMoreData && used == length) held = length;
        Assert.Equal(Encoding.UTF8.GetString(so[..^held]), text);
    }
}
