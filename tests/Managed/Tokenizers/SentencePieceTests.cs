using Xunit;

namespace Treeline.Tests.Managed;

public sealed class SentencePieceTests : IDisposable
{
    private const int Bos = 1, Eos = 2, FirstByte = 3;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    // Tokens 259 on; a letter's own piece has the lowest score, as trainers give it.
    internal static SentencePieceFile Small() => SentencePieceFile.Llama().Merges("ab", "▁ab", "▁c", "▁▁", "▁", "a", "b", "c", "é");

    private static int Piece(string text) => 259 + Array.IndexOf(["ab", "▁ab", "▁c", "▁▁", "▁", "a", "b", "c", "é"], text);

    [Fact]
    public void Pieces_are_merged_by_score_after_the_first_token()
    {
        TextTokenizer tokenizer = Load(Small());
        Assert.Equal(268, tokenizer.VocabularySize);
        Assert.Equal([Bos, Piece("▁ab"), Piece("▁c"), Piece("é")], tokenizer.Encode("ab cé"));
        Assert.Equal([Bos], tokenizer.Encode(""));
        Assert.Equal("ab cé", tokenizer.Decode([Bos, Piece("▁ab"), Piece("▁c"), Piece("é"), Eos]));
    }

    [Fact]
    public void Random_pieces_agree_with_the_plain_definition()
    {
        for (int seed = 0; seed < 40; seed++)
        {
            var random = new Random(seed);
            List<string> names = ["a", "b", "c", "▁"];
            for (int i = 0; i < 25; i++)
                if (names[random.Next(names.Count)] + names[random.Next(names.Count)] is { Length: < 8 } name && !names.Contains(name)) names.Add(name);
            // The single letters last: they have the lowest scores.
            string[] pieces = [.. names.Skip(4).OrderBy(_ => random.Next()), .. names.Take(4)];
            TextTokenizer tokenizer = Load(SentencePieceFile.Llama().Merges(pieces));
            for (int i = 0; i < 50; i++)
            {
                string text = string.Concat(Enumerable.Range(0, random.Next(1, 40)).Select(_ => random.Next(5) is var letter && letter < 3 ? (char)('a' + letter) : ' '));
                IEnumerable<string> expected = ByteLevelTests.PlainMerges('▁' + text.Replace(' ', '▁'), pair => Array.IndexOf(pieces, pair.Left + pair.Right));
                Assert.Equal(expected, tokenizer.Encode(text).Skip(1).Select(id => pieces[id - 259]));
            }
        }
    }

    [Fact]
    public void Characters_without_a_piece_are_bytes()
    {
        TextTokenizer tokenizer = Load(Small());
        Assert.Equal([Bos, Piece("▁"), FirstByte + 0xe2, FirstByte + 0x82, FirstByte + 0xac, FirstByte + '\n'], tokenizer.Encode("€\n"));
        Assert.Equal([0xe2], tokenizer.Bytes(FirstByte + 0xe2).ToArray());
        Assert.Equal("€\n", tokenizer.Decode(tokenizer.Encode("€\n")));
        Assert.Equal("\ufffda", tokenizer.Decode([FirstByte + 0xe2, Piece("a")]));
    }

    [Fact]
    public void The_first_space_alone_is_left_out()
    {
        TextTokenizer tokenizer = Load(Small());
        Assert.Equal(" ab"u8, tokenizer.Bytes(Piece("▁ab")).Span);
        Assert.Equal("ab"u8, tokenizer.FirstBytes(Piece("▁ab")).Span);
        Assert.Equal("ab ab", tokenizer.Decode([Piece("▁ab"), Piece("▁ab")]));
        Assert.Equal("a ab", tokenizer.Decode([Piece("a"), Piece("▁ab")]));
        Assert.Equal(" ab", tokenizer.Decode([FirstByte + ' ', Piece("ab")]));
        Assert.Equal("  c", tokenizer.Decode(tokenizer.Encode("  c")));

        var prompt = new StreamingDetokenizer(tokenizer, continues: true);
        Assert.Equal(" ab", prompt.Push(Piece("▁ab")));
    }

    [Fact]
    public void Without_a_dummy_space_the_first_one_is_text()
    {
        SentencePieceFile file = Small();
        file.AddSpace = false;
        TextTokenizer tokenizer = Load(file);
        Assert.Equal([Bos, Piece("ab")], tokenizer.Encode("ab"));
        Assert.Equal(" ab", tokenizer.Decode(tokenizer.Encode(" ab")));
    }

    [Fact]
    public void Spaces_are_dropped_where_the_model_says_so()
    {
        SentencePieceFile file = Small();
        file.DropSpaces = true;
        TextTokenizer tokenizer = Load(file);
        Assert.Equal(tokenizer.Encode("ab c"), tokenizer.Encode("  ab   c "));
        Assert.Equal([Bos], tokenizer.Encode("   "));
    }

    [Fact]
    public void The_configuration_says_what_frames_a_text()
    {
        _folder.Write("tokenizer_config.json", """{"add_bos_token":false,"add_eos_token":true}""");
        Assert.Equal([Piece("▁ab"), Eos], Load(Small()).Encode("ab"));
    }

    [Theory]
    [InlineData("added_tokens.json", """{"<|im|>":2147483647}""")]
    [InlineData("added_tokens.json", """{"<|im|>":-1}""")]
    [InlineData("tokenizer_config.json", """{"added_tokens_decoder":{"2147483647":{"content":"<|im|>"}}}""")]
    public void Numbers_that_are_no_tokens_are_refused(string file, string content)
    {
        _folder.Write(file, content);
        string message = Assert.Throws<CheckpointException>(() => Load(Small())).Message;
        Assert.Contains(file, message, StringComparison.Ordinal);
        Assert.Contains("expected a token's id", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Special_tokens_are_found_in_a_text()
    {
        _folder.Write("added_tokens.json", """{"<|im|>":268}""");
        TextTokenizer tokenizer = Load(Small());
        Assert.Equal(269, tokenizer.VocabularySize);
        Assert.Equal([Bos, Piece("▁ab"), Eos, Bos, Piece("▁ab"), 268], tokenizer.Encode("ab</s><s>ab<|im|>"));
        Assert.Equal("ab ab<|im|>", tokenizer.Decode(tokenizer.Encode("ab</s><s>ab<|im|>")));

        _folder.Write("tokenizer_config.json", """{"legacy":false}""");
        Assert.Equal([Bos, Piece("▁ab"), Eos, Piece("ab")], Load(Small()).Encode("ab</s>ab"));
    }

    [Fact]
    public void User_defined_pieces_merge_with_nothing()
    {
        TextTokenizer tokenizer = Load(Small().Add("b▁", 0, 4));
        Assert.Equal([Bos, Piece("▁"), Piece("a"), 268, Piece("c")], tokenizer.Encode("ab c"));
        Assert.Equal("ab c", tokenizer.Decode(tokenizer.Encode("ab c")));
    }

    [Fact]
    public void Of_equal_pairs_the_leftmost_is_merged()
    {
        TextTokenizer tokenizer = Load(Small());
        Assert.Equal([Bos, Piece("▁▁"), Piece("▁▁"), Piece("▁")], tokenizer.Encode("    "));
    }

    [Fact]
    public void Unused_pieces_are_merged_on_but_not_given_out()
    {
        TextTokenizer tokenizer = Load(SentencePieceFile.Llama().Add("ab", -1, 5).Add("abc", -2).Merges("▁", "a", "b", "c"));
        Assert.Equal([Bos, 261, 260], tokenizer.Encode("abc"));
        Assert.Equal([Bos, 261, 262, 263], tokenizer.Encode("ab"));
    }

    [Fact]
    public void Control_tokens_and_bytes_come_from_no_text()
    {
        TextTokenizer tokenizer = Load(SentencePieceFile.Llama().Merges("▁", "<", "0", "x", "4", "1", ">", "<0", "<0x", "<0x4", "<0x41", "un", "<un"));
        Assert.Equal("<0x41><unk>", tokenizer.Decode(tokenizer.Encode("<0x41><unk>")));
    }

    [Fact]
    public void A_character_that_cannot_be_encoded_is_named()
    {
        SentencePieceFile file = SentencePieceFile.Llama(bytes: false).Merges("▁", "a");
        TextTokenizer tokenizer = Load(file);
        Assert.Equal([Bos, 3, 4], tokenizer.Encode("a"));
        Assert.Contains("no token for '€' (U+20AC)", Assert.Throws<ArgumentException>(() => tokenizer.Encode("a€")).Message);
        Assert.Contains("no token for '😀' (U+1F600)", Assert.Throws<ArgumentException>(() => tokenizer.Encode("a😀")).Message);
        Assert.Equal(" ⁇ ", tokenizer.Decode([0]));
        Assert.Contains("got 5", Assert.Throws<ArgumentException>(() => tokenizer.Bytes(5)).Message);
    }

    [Fact]
    public void Any_text_comes_back()
    {
        TextTokenizer tokenizer = Load(Small());
        var random = new Random(7);
        for (int i = 0; i < 300; i++)
        {
            string text = RandomTexts.Next(random, random.Next(1, 60));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void A_long_text_without_spaces_comes_back()
    {
        TextTokenizer tokenizer = Load(Small());
        string text = string.Concat(Enumerable.Repeat("ab😀é", 20_000));
        Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
    }

    [Fact]
    public void What_is_not_supported_is_refused_by_name()
    {
        Refused(file => file.Algorithm = 1, "Unigram is not supported");
        Refused(file => file.CharacterMap = [1, 2, 3], "precompiled_charsmap");
        Refused(file => file.SpaceAtEnd = true, "treat_whitespace_as_suffix");
        Refused(file => file.Escape = false, "escape_whitespaces");
        Refused(file => file.UnknownId = 1, "unk_id 1");
        Refused(file => file.UnknownId = -1, "unk_id -1");
        Refused(file => file.Add("ab"), "piece 268 'ab' is listed twice");
        Refused(file => file.Add(""), "piece 268 is empty");
        Refused(file => file.Add("x", float.NaN), "piece 268 'x' has the score NaN");
        Refused(file => file.Add("x", 0, 9), "unknown type 9");
        Refused(file => file.Add("<u>", 0, 2), "expected one unknown piece");
        Refused(file => file.Add("<0xaa>", 0, 6), "byte piece '<0xaa>': that byte has one already");
        Refused(file => file.Add("<0xZZ>", 0, 6), "byte piece '<0xZZ>'");

        _folder.Write("tokenizer.model", SentencePieceFile.Llama(bytes: false).Merges("a").ToBytes());
        SentencePieceFile bytes = SentencePieceFile.Llama(bytes: false).Merges("a");
        bytes.ByteFallback = true;
        Assert.Contains("byte_fallback: piece <0x00> is missing", Assert.Throws<CheckpointException>(() => Load(bytes)).Message);
    }

    [Fact]
    public void Damaged_files_are_refused()
    {
        byte[] whole = Small().ToBytes();
        _folder.Write("tokenizer.model", ReadOnlySpan<byte>.Empty);
        Assert.Contains("it has no pieces", Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.Path)).Message);
        _folder.Write("tokenizer.model", whole.AsSpan(0, whole.Length / 2));
        Assert.Contains("tokenizer.model: no SentencePiece model", Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.Path)).Message);
        // A table of tiktoken's, which has the same name in some folders.
        _folder.Write("tokenizer.model", "IQ== 0\nIg== 1\n");
        Assert.Contains("no SentencePiece model", Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.Path)).Message);
    }

    private TextTokenizer Load(SentencePieceFile file)
    {
        _folder.Write("tokenizer.model", file.ToBytes());
        return TextTokenizer.Load(_folder.Path)!;
    }

    private void Refused(Action<SentencePieceFile> change, string message)
    {
        SentencePieceFile file = Small();
        change(file);
        Assert.Contains(message, Assert.Throws<CheckpointException>(() => Load(file)).Message);
    }
}
