using System.Globalization;
using System.Text;
using System.Text.Json;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class TokenizerJsonTests : IDisposable
{
    private const string Llama3 = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string ByteLevel = """{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}""";

    private const string DefaultMerges = """["a b","Ġ c","Ġc d"]""";

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Gpt2s_form_is_read()
    {
        TextTokenizer tokenizer = Load(pre: ByteLevel, post: """{"type":"ByteLevel"}""", decoder: """{"type":"ByteLevel"}""");
        Assert.Equal(300, tokenizer.VocabularySize);
        Assert.Equal([256, 257], tokenizer.Encode("ab cd"));
        Assert.Equal([256, 258, 99], tokenizer.Encode("ab<e>c"));
        Assert.Equal("ab<e>", tokenizer.Decode([256, 258]));
    }

    [Fact]
    public void Pairs_may_be_lists_and_a_template_gives_the_first_and_last_tokens()
    {
        string template = """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<e>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"x"}}],"special_tokens":{"<e>":{"id":"<e>","ids":[258],"tokens":["<e>"]},"x":{"ids":[120,121]}}}""";
        TextTokenizer tokenizer = Load(pre: Split(Llama3), post: $$"""{"type":"Sequence","processors":[{"type":"ByteLevel"},{{template}}]}""", merges: """[["a","b"],["Ġ","c"]]""");
        Assert.Equal([258, 256, 120, 121], tokenizer.Encode("ab"));
        Assert.Equal([258, 120, 121], tokenizer.Encode(""));
        Assert.Equal("ab", tokenizer.Decode(tokenizer.Encode("ab")));
    }

    [Theory]
    [InlineData("I'LL 12345 x\n\n  y", "I|'LL| |123|45| x|\n\n| | y")]
    [InlineData("¿qué?\r\n\r\n", "¿qué|?\r\n\r\n")]
    [InlineData("a  ", "a|  ")]
    [InlineData("𝒜𝒷c𝟙𝟚𝟛𝟜😀!x", "𝒜𝒷c|𝟙𝟚𝟛|𝟜|😀!|x")]
    [InlineData("𠀀𠀁 𠀂", "𠀀𠀁| 𠀂")]
    public void Llama3s_pattern_cuts_code_points(string text, string pieces)
    {
        List<(int Start, int Length)> parts = new TextSplitter(Llama3).Split(text, [(0, text.Length)]);
        Assert.Equal(pieces, string.Join('|', parts.Select(part => text.Substring(part.Start, part.Length))));
    }

    [Theory]
    [InlineData("We've  got\t10 things, ok?", "We|'ve| | got|\t|10| things|,| ok|?")]
    [InlineData("x\n\n\ny", "x|\n\n|\n|y")]
    public void Gpt2s_pattern_cuts_as_it_does_there(string text, string pieces)
    {
        List<(int Start, int Length)> parts = new TextSplitter(TextSplitter.Gpt2).Split(text, [(0, text.Length)]);
        Assert.Equal(pieces, string.Join('|', parts.Select(part => text.Substring(part.Start, part.Length))));
    }

    [Fact]
    public void Each_category_has_an_example()
    {
        for (int category = 0; category < TextSplitter.Examples.Length; category++)
        {
            // Halves of pairs never come; they stand for themselves as U+FFFD.
            if ((UnicodeCategory)category == UnicodeCategory.Surrogate) continue;
            Assert.Equal((UnicodeCategory)category, CharUnicodeInfo.GetUnicodeCategory(TextSplitter.Examples[category]));
        }

        Assert.Equal((int)UnicodeCategory.OtherNotAssigned + 1, TextSplitter.Examples.Length);
    }

    [Fact]
    public void A_whole_piece_may_come_before_merges()
    {
        // "cab" is a token that no merge makes.
        const string Vocabulary = ""","cab":300""";
        Assert.Equal([99, 256], Load(pre: ByteLevel, more: Vocabulary).Encode("cab"));
        Assert.Equal([300], Load(pre: ByteLevel, more: Vocabulary, model: "\"ignore_merges\":true,").Encode("cab"));
    }

    [Fact]
    public void Digits_are_cut_one_by_one()
    {
        TextTokenizer tokenizer = Load(pre: """{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]}""", merges: """["1 2"]""", more: ""","12":300""");
        Assert.Equal([49, 50], tokenizer.Encode("12"));
    }

    [Fact]
    public void Any_text_comes_back()
    {
        TextTokenizer tokenizer = Load(pre: Split(Llama3));
        var random = new Random(5);
        for (int i = 0; i < 300; i++)
        {
            string text = RandomTexts.Next(random, random.Next(1, 60));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Theory]
    [InlineData("pre", """{"type":"Whitespace"}""", "pre_tokenizer.type: 'Whitespace' is not supported")]
    [InlineData("pre", """{"type":"Metaspace"}""", "'Metaspace'")]
    [InlineData("pre", """{"type":"Sequence","pretokenizers":[{"type":"Punctuation"}]}""", "'Punctuation'")]
    [InlineData("pre", """{"type":"Sequence","pretokenizers":[]}""", "without ByteLevel")]
    [InlineData("pre", "null", "without ByteLevel")]
    [InlineData("pre", """{"type":"Split","pattern":{"Regex":"a"},"behavior":"MergedWithNext"}""", "'MergedWithNext'")]
    [InlineData("pre", """{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"}""", "is not supported")]
    [InlineData("pre", """{"type":"Split","pattern":{"Regex":"[[:alpha:]]"},"behavior":"Isolated"}""", "[: :]")]
    [InlineData("pre", """{"type":"Split","pattern":{"Regex":"\\p{L}++"},"behavior":"Isolated"}""", "is not supported")]
    [InlineData("norm", """{"type":"NFKC"}""", "'NFKC' is not supported")]
    [InlineData("norm", """{"type":"Sequence","normalizers":[{"type":"Lowercase"}]}""", "'Lowercase' is not supported")]
    [InlineData("post", """{"type":"BertProcessing"}""", "'BertProcessing'")]
    [InlineData("post", """{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"Sequence":{"id":"B"}}],"special_tokens":{}}""", "around one sequence")]
    [InlineData("post", """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"q"}},{"Sequence":{"id":"A"}}],"special_tokens":{}}""", "special_tokens.q: missing")]
    [InlineData("post", """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"q"}},{"Sequence":{"id":"A"}}],"special_tokens":{"q":{"ids":[777]}}}""", "token 777, which goes before or after each text")]
    [InlineData("decoder", """{"type":"WordPiece"}""", "'WordPiece'")]
    [InlineData("model", "\"type\":\"Unigram\",", "model.type: 'Unigram' is not supported")]
    [InlineData("model", "\"type\":\"WordPiece\",", "'WordPiece' is not supported")]
    [InlineData("model", "\"end_of_word_suffix\":\"</w>\",", "'</w>' is not supported")]
    [InlineData("model", "\"continuing_subword_prefix\":\"##\",", "'##' is not supported")]
    [InlineData("model", "\"dropout\":0.1,", "dropout: is not supported")]
    [InlineData("merges", """["a"]""", "merges: [0]: expected two tokens")]
    [InlineData("merges", """[["a","b","c"]]""", "merges: [0]: expected two tokens")]
    [InlineData("merges", """[7]""", "merges: [0]: expected two tokens")]
    [InlineData("merges", """["a z"]""", "'az' is not in the vocabulary")]
    [InlineData("merges", "null", "merges: missing")]
    public void What_is_not_supported_is_refused_by_name(string part, string json, string message)
    {
        string Or(string name, string other) => part == name ? json : other;
        var e = Assert.Throws<CheckpointException>(() => Load(Or("pre", ByteLevel), Or("post", "null"), Or("decoder", "null"), Or("merges", "[]"), Or("model", ""), "", Or("norm", "null")));
        Assert.Contains(message, e.Message);
        Assert.Contains("tokenizer.json", e.Message);
    }

    private static string Split(string pattern) =>
        $$"""{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":{{JsonSerializer.Serialize(pattern)}}},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}""";

    /// <summary>A file of the usual form.</summary>
    internal static byte[] Sample() => Encoding.UTF8.GetBytes(Json(Split(Llama3), """{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<e>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<e>":{"ids":[258]}}}"""));

    private TextTokenizer Load(string pre, string post = "null", string decoder = "null", string merges = DefaultMerges, string model = "", string more = "", string normalizer = "null")
    {
        _folder.Write("tokenizer.json", Json(pre, post, decoder, merges, model, more, normalizer));
        return TextTokenizer.Load(_folder.Path)!;
    }

    // Tokens 0 to 255 are the bytes, then ab, Ġcd, <e>.
    private static string Json(string pre, string post = "null", string decoder = "null", string merges = DefaultMerges, string model = "", string more = "", string normalizer = "null")
    {
        var vocabulary = new StringBuilder();
        for (int value = 0; value < 256; value++) vocabulary.Append(CultureInfo.InvariantCulture, $"{JsonSerializer.Serialize(ByteAlphabet.Character((byte)value).ToString())}:{value},");
        string type = model.Contains("\"type\"", StringComparison.Ordinal) ? "" : "\"type\":\"BPE\",";
        return $$"""
            {"version":"1.0","truncation":null,"added_tokens":[{"id":258,"content":"<e>","special":true}],"normalizer":{{normalizer}},"pre_tokenizer":{{pre}},"post_processor":{{post}},"decoder":{{decoder}},
             "model":{ {{type}} {{model}} "vocab":{ {{vocabulary}} "ab":256,"Ġcd":257,"Ġc":299 {{more}} },"merges":{{merges}} } }
            """;
    }
}
