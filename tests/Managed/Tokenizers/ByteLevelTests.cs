using System.Text.Json;
using Treeline.Kernels;
using Treeline.Tests.Architecture;
using Xunit;

namespace Treeline.Tests.Managed;

public sealed class ByteLevelTests : IDisposable
{
    // The bytes in GPT-2's letters, then the names of the merges below.
    private static readonly string[] Names = [.. Enumerable.Range(0, 256).Select(value => ByteAlphabet.Character((byte)value).ToString()), "he", "hel", "lo", "hello", "Ġw", "Ġwo", "12", "23", "123", "Ã©"];

    private static readonly string[] Merges = ["h e", "he l", "l o", "hel lo", "Ġ w", "Ġw o", "1 2", "2 3", "12 3", "Ã ©"];

    private readonly TemporaryFolder _folder = new();

    private static string Shipped => Path.Combine(Sources.Root, "models", "shakespeare-2m");

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void The_shipped_model_has_the_recorded_ids()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        using JsonDocument recorded = JsonDocument.Parse(File.ReadAllText(Path.Combine(Shipped, "recorded.json")));
        Assert.Equal(1024, tokenizer.VocabularySize);
        JsonElement samples = recorded.RootElement.GetProperty("samples");
        Assert.Equal(4, samples.GetArrayLength());
        foreach (JsonElement sample in samples.EnumerateArray())
        {
            string text = sample.GetProperty("text").GetString()!;
            int[] ids = [.. sample.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32())];
            Assert.Equal(ids, tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(ids));
        }
    }

    [Fact]
    public void A_model_brings_its_tokenizer()
    {
        using KernelBackend backend = Backends.Open("cpu");
        using CausalModel model = CausalModel.Load(Shipped, backend);
        Assert.Equal("To be", model.Tokenizer!.Decode(model.Tokenizer.Encode("To be")));
    }

    [Fact]
    public void Any_text_comes_back()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        var random = new Random(3);
        for (int i = 0; i < 300; i++)
        {
            string text = RandomTexts.Next(random, random.Next(1, 80));
            Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
        }
    }

    [Fact]
    public void A_long_word_is_one_piece_and_comes_back()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        string text = new('a', 100_000);
        Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
    }

    [Fact]
    public void An_empty_text_is_no_tokens()
    {
        Assert.Empty(TextTokenizer.Load(Shipped)!.Encode(""));
        Assert.Equal("", TextTokenizer.Load(Shipped)!.Decode([]));
    }

    [Fact]
    public void Half_a_surrogate_pair_becomes_the_replacement_character()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        Assert.Equal("a\ufffdb\ufffd", tokenizer.Decode(tokenizer.Encode("a\ud83db\ude00")));
    }

    [Fact]
    public void The_end_of_text_is_recognised_when_it_is_written_out()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        Assert.Equal([.. tokenizer.Encode("a"), 0, .. tokenizer.Encode("b")], tokenizer.Encode("a<|endoftext|>b"));
    }

    [Fact]
    public void A_token_that_is_not_in_the_vocabulary_is_named()
    {
        TextTokenizer tokenizer = TextTokenizer.Load(Shipped)!;
        foreach (int token in new[] { -1, 1024, int.MaxValue })
        {
            Assert.Contains($"(0 to 1023), got {token}", Assert.Throws<ArgumentException>(() => tokenizer.Bytes(token)).Message);
            Assert.Throws<ArgumentException>(() => tokenizer.Decode([token]));
        }
    }

    [Fact]
    public void Merges_are_taken_by_rank()
    {
        TextTokenizer tokenizer = Files();
        Assert.Equal(["hello", "Ġwo", "r", "l", "d"], Pieces(tokenizer, "hello world"));
        Assert.Equal(["123"], Pieces(tokenizer, "123"));
        Assert.Equal(["2", "123"], Pieces(tokenizer, "2123"));
        Assert.Equal(["2", "23"], Pieces(tokenizer, "223"));
        Assert.Equal(["Ġ", "Ġ", "Ã©"], Pieces(tokenizer, "  é"));
    }

    [Fact]
    public void Random_merges_agree_with_the_plain_definition()
    {
        for (int seed = 0; seed < 40; seed++)
        {
            var random = new Random(seed);
            List<string> names = ["a", "b", "c", "d"];
            var merges = new List<(string Left, string Right)>();
            while (merges.Count < 25)
            {
                (string Left, string Right) merge = (names[random.Next(names.Count)], names[random.Next(names.Count)]);
                if (merge.Left.Length + merge.Right.Length > 7 || merges.Contains(merge)) continue;
                merges.Add(merge);
                if (!names.Contains(merge.Left + merge.Right)) names.Add(merge.Left + merge.Right);
            }

            _folder.Write("vocab.json", JsonSerializer.Serialize(names.Select((name, id) => (name, id)).ToDictionary()));
            _folder.Write("merges.txt", "#version: 0.2\n" + string.Join('\n', merges.Select(merge => $"{merge.Left} {merge.Right}")));
            TextTokenizer tokenizer = TextTokenizer.Load(_folder.Path)!;
            for (int i = 0; i < 50; i++)
            {
                string word = string.Concat(Enumerable.Range(0, random.Next(1, 40)).Select(_ => (char)('a' + random.Next(4))));
                Assert.Equal(PlainMerges(word, pair => merges.IndexOf(pair)), tokenizer.Encode(word).Select(id => names[id]));
            }
        }
    }

    [Fact]
    public void Special_tokens_are_found_in_a_text()
    {
        _folder.Write("special_tokens_map.json", """{"pad_token":{"content":"<p>"},"additional_special_tokens":["<p><p>","<q>"]}""");
        _folder.Write("added_tokens.json", """{"<p>":300,"<p><p>":301,"<q>":302}""");
        _folder.Write("tokenizer_config.json", """{"add_bos_token":true,"bos_token":"<q>","added_tokens_decoder":{"303":{"content":"<m>","lstrip":true,"rstrip":true},"304":{"content":"w","single_word":true}}}""");
        TextTokenizer tokenizer = Files();
        Assert.Equal(305, tokenizer.VocabularySize);
        Assert.Equal([302, 301, 300, Id("h"), 303, Id("a"), Id("w"), Id("Ġ"), 304], tokenizer.Encode("<p><p><p>h  <m>\n aw w"));
        Assert.Equal("<p>h<m>", tokenizer.Decode([302, 300, Id("h"), 303]));
    }

    [Fact]
    public void A_leading_space_is_added_where_the_configuration_says_so()
    {
        _folder.Write("tokenizer_config.json", """{"add_prefix_space":true,"add_eos_token":true,"eos_token":"h"}""");
        TextTokenizer tokenizer = Files();
        Assert.Equal([Id("Ġwo"), Id("h")], tokenizer.Encode("wo"));
        Assert.Equal([Id("Ġwo"), Id("h")], tokenizer.Encode(" wo"));
    }

    [Fact]
    public void A_byte_without_a_token_names_its_character()
    {
        _folder.Write("vocab.json", """{"a":0,"b":1,"Ġ":2}""");
        _folder.Write("merges.txt", "");
        TextTokenizer tokenizer = TextTokenizer.Load(_folder.Path)!;
        Assert.Equal([0, 2, 1], tokenizer.Encode("a b"));
        Assert.Contains("no token for byte 0xc3 of 'é' (U+00E9)", Assert.Throws<ArgumentException>(() => tokenizer.Encode("a é")).Message);
        Assert.Contains("of U+000A", Assert.Throws<ArgumentException>(() => tokenizer.Encode("a\n")).Message);
    }

    [Theory]
    [InlineData(null, "", "merges.txt: file not found")]
    [InlineData("h", "{}", "line 2: expected two tokens with a space between, got 'h'")]
    [InlineData("h e x", "{}", "line 2: expected two tokens")]
    [InlineData("h q", "{}", "the merge of 'h' and 'q': 'hq' is not in the vocabulary")]
    [InlineData("h e\nh e", "{}", "the merge of 'h' and 'e' is listed twice")]
    [InlineData("h e", "[]", "expected an object")]
    [InlineData("h e", "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", "bos_token: '<s>' is not in the vocabulary")]
    [InlineData("h e", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}", "added_tokens_decoder.x: expected a token's id")]
    [InlineData("h e", "{\"added_tokens_decoder\":{\"1\":7}}", "added_tokens_decoder.1: expected an object")]
    public void Damaged_files_are_refused(string? merges, string config, string message)
    {
        _folder.Write("vocab.json", JsonSerializer.Serialize(Names.Select((name, id) => (name, id)).ToDictionary()));
        if (merges is not null) _folder.Write("merges.txt", "#version: 0.2\n" + merges);
        if (config.Length > 0) _folder.Write("tokenizer_config.json", config);
        Assert.Contains(message, Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.Path)).Message);
    }

    [Theory]
    [InlineData("{}", "its vocabulary is empty")]
    [InlineData("{\"a\":0,\"b\":0}", "token 0 has two names")]
    [InlineData("{\"a\":-1}", "a: expected a token's id")]
    [InlineData("{\"a\":\"x\"}", "a: expected a token's id")]
    [InlineData("{\"a\":2147483647}", "a: expected a token's id")]
    [InlineData("{\"a\":0,\"a\":1}", "JSON")]
    [InlineData("{\"a\":0", "JSON")]
    [InlineData("{\"\\ud800\":0}", "vocab.json: Cannot read")]
    public void A_damaged_vocabulary_is_refused(string vocabulary, string message)
    {
        _folder.Write("vocab.json", vocabulary);
        _folder.Write("merges.txt", "");
        Assert.Contains(message, Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.Path)).Message);
    }

    [Fact]
    public void A_folder_without_a_tokenizer_has_none()
    {
        Assert.Null(TextTokenizer.Load(_folder.Path));
        Assert.Contains("nowhere: folder not found", Assert.Throws<CheckpointException>(() => TextTokenizer.Load(_folder.At("nowhere"))).Message);
    }

    /// <summary>BPE by its definition: the most urgent pair, of equal ones the leftmost, becomes one; until there is none.</summary>
    /// <param name="word">The text.</param>
    /// <param name="rank">A pair's place in the order of merges, −1 where there is none.</param>
    internal static List<string> PlainMerges(string word, Func<(string Left, string Right), int> rank)
    {
        List<string> pieces = [.. word.Select(letter => letter.ToString())];
        while (true)
        {
            int best = -1, bestRank = int.MaxValue;
            for (int i = 0; i + 1 < pieces.Count; i++)
                if (rank((pieces[i], pieces[i + 1])) is var found && found >= 0 && found < bestRank) (best, bestRank) = (i, found);
            if (best < 0) return pieces;
            pieces[best] += pieces[best + 1];
            pieces.RemoveAt(best + 1);
        }
    }

    private static int Id(string name) => Array.IndexOf(Names, name);

    private static string[] Pieces(TextTokenizer tokenizer, string text) => [.. tokenizer.Encode(text).Select(id => Names[id])];

    private TextTokenizer Files()
    {
        _folder.Write("vocab.json", JsonSerializer.Serialize(Names.Select((name, id) => (name, id)).ToDictionary()));
        _folder.Write("merges.txt", "#version: 0.2\n" + string.Join('\n', Merges) + "\n");
        return TextTokenizer.Load(_folder.Path)!;
    }
}
