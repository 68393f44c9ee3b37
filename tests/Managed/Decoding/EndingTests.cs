using System.Text;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Where a text ends, and what of it is given out when.</summary>
public class EndingTests
{
    private const int Vocabulary = 23;

    // Pieces that cut words and characters anywhere.
    private static readonly byte[][] Pieces =
    [
        "he"u8.ToArray(), "llo"u8.ToArray(), " wor"u8.ToArray(), "ld"u8.ToArray(), "!"u8.ToArray(), "a"u8.ToArray(), "b"u8.ToArray(), "aa"u8.ToArray(),
        [0xC3], [0xA9], [0xF0, 0x9F], [0x98, 0x80], "é"u8.ToArray(), "o w"u8.ToArray(), [],
        .. Enumerable.Range(0, Vocabulary - 15).Select(i => new[] { (byte)('p' + i) }),
    ];

    public static TheoryData<string> Drafters => ["none", "oracular", "noise"];

    [Theory, MemberData(nameof(Drafters))]
    public void A_stop_token_is_the_last_and_no_part_of_the_characters(string drafter)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces), Stops = [4] };
        (Sequence sequence, string text) = Write(model, [0, 1, 2, 3, 4, 5], new(), drafter);
        Assert.Equal((FinishReason.StopToken, "hello world"), (sequence.FinishReason, text));
        Assert.Equal([0, 1, 2, 3, 4], sequence.Generated.ToArray());
        (sequence, text) = Write(model, [0, 1, 2, 3, 4, 5], new() { StopTokens = [2, 20], MaxTokens = 6 }, drafter);
        Assert.Equal((FinishReason.StopToken, "hello"), (sequence.FinishReason, text));
        (sequence, text) = Write(model, [0, 1, 2, 3, 4, 5], new() { StopTokens = [], MaxTokens = 6 }, drafter);
        Assert.Equal((FinishReason.MaxTokens, "hello world!a"), (sequence.FinishReason, text));
    }

    [Theory, MemberData(nameof(Drafters))]
    public void A_stop_string_ends_the_text_before_it_wherever_tokens_cut_it(string drafter)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        (Sequence sequence, string text) = Write(model, [0, 1, 2, 3, 4], new() { StopStrings = ["xyz", "lo wo"] }, drafter);
        Assert.Equal((FinishReason.StopString, "hel", 3), (sequence.FinishReason, text, sequence.Generated.Length));
        // What may be its beginning turns out not to be, three times.
        (sequence, text) = Write(model, [7, 5, 7, 6, 4], new() { StopStrings = ["aab"] }, drafter);
        Assert.Equal((FinishReason.StopString, "aaa", 4), (sequence.FinishReason, text, sequence.Generated.Length));
        (sequence, text) = Write(model, [5, 6, 5, 4], new() { StopStrings = ["ab!", "aba!"], MaxTokens = 3 }, drafter);
        Assert.Equal((FinishReason.MaxTokens, "aba"), (sequence.FinishReason, text));
        (sequence, text) = Write(model, [5, 6, 5, 4], new() { StopStrings = ["ab"], MaxTokens = 2 }, drafter);
        Assert.Equal((FinishReason.StopString, ""), (sequence.FinishReason, text));
    }

    [Fact]
    public void Text_is_given_out_as_soon_as_it_is_certain()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        Assert.Equal(["he", "l", "", "lo world"], Steps(model, [0, 1, 2, 3], ["lo world!"]));
        Assert.Equal(["", "", "", "", "abé!"], Steps(model, [5, 6, 8, 9, 4], ["abé?"]));
        Assert.Equal(["", "é", "", "😀", "a", "\ufffd"], Steps(model, [8, 9, 10, 11, 5, 8], []));
        Assert.Equal(["he", "", "\ufffd"], Steps(model, [0, 14, 8], []));
    }

    [Fact]
    public void Texts_and_stop_strings_of_any_kind()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        var random = new Random(4);
        for (int round = 0; round < 150; round++)
        {
            int[] script = [.. Enumerable.Range(0, random.Next(1, 25)).Select(_ => random.Next(round % 2 == 0 ? 15 : 8))];
            string[] stops = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => Cut(random, Read(script.Concat([5, 6, 7]))))];
            (string want, int tokens, bool stopped) = Reference(script, stops);
            (Sequence sequence, string got) = Write(model, script, new() { StopStrings = stops, MaxTokens = script.Length }, random.Pick("none", "oracular", "noise"));
            Assert.Equal((want, tokens, stopped), (got, sequence.Generated.Length, sequence.FinishReason == FinishReason.StopString));
        }
    }

    [Fact]
    public void Held_back_text_comes_when_there_is_no_more_room()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, maxPositions: 5) { Text = new ToyTokenizer(Pieces) };
        (Sequence sequence, string text) = Write(model, [5, 6, 4, 0, 1], new() { StopStrings = ["hello!"] }, "none");
        Assert.Equal((FinishReason.Capacity, "ab!hello", 6), (sequence.FinishReason, text, sequence.Count));
        var options = new GenerationOptions { StopStrings = ["he!"], Processors = [new Script(3, 4, 0, 8, 3)] };
        Assert.Equal("!he\ufffd", string.Concat(model.Generate("aba", options, cancellation: TestContext.Current.CancellationToken)));
    }

    [Fact]
    public void A_text_goes_on_after_its_end()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        using var batch = new DecodingBatch(model);
        // The stop string is complete in the middle of an accepted path.
        int[] script = [0, 1, 2, 3, 4];
        var options = new GenerationOptions { Processors = [new Script(2, script)], StopStrings = ["o w"], CustomDrafter = new Oracular([5, 6, .. script], 4, 1, 0, Vocabulary), TreePolicy = TreePolicy.Chain(4) };
        Sequence sequence = batch.Add([5, 6], options);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal([5, 6, 0, 1, 2], sequence.Tokens.ToArray());
        Assert.Equal(2, batch.Statistics.SequenceSteps);
        Assert.Equal("hell", sequence.TakeText());

        var plain = new GenerationOptions { MaxTokens = 15, Drafter = Drafter.Lookup };
        sequence.Continue([9, 9], plain);
        Assert.Equal((7, 0, FinishReason.None), (sequence.PromptLength, sequence.Generated.Length, sequence.FinishReason));
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, [5, 6, 0, 1, 2, 9, 9], plain), sequence.Generated.ToArray());
        int[] all = sequence.Tokens.ToArray();
        sequence.Continue([], plain);
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(OneAtATime.Generate(model, all, plain), sequence.Generated.ToArray());
        Assert.StartsWith("prompt: expected tokens from 0 to 22, got 23", Assert.Throws<ArgumentException>(() => sequence.Continue([23])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_cancelled_text_holds_back_what_it_may_need()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        using var batch = new DecodingBatch(model);
        Sequence sequence = batch.Add([5], new() { Processors = [new Script(1, 0, 8, 9)], MaxTokens = 3 });
        batch.Step(TestContext.Current.CancellationToken);
        batch.Step(TestContext.Current.CancellationToken);
        sequence.Cancel();
        Assert.Equal("he", sequence.TakeText());
        sequence.Resume();
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal("é", sequence.TakeText());
    }

    [Fact]
    public void A_fork_gives_out_what_has_not_been_taken()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        using var batch = new DecodingBatch(model);
        Sequence sequence = batch.Add([5], new() { Processors = [new Script(1, 0, 1, 2, 3)], MaxTokens = 4, StopStrings = ["lo wx"] });
        batch.Step(TestContext.Current.CancellationToken);
        batch.Step(TestContext.Current.CancellationToken);
        Assert.Equal("hel", sequence.TakeText());
        Sequence fork = sequence.Fork();
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal("lo world", sequence.TakeText());
        Assert.Equal("lo world", fork.TakeText());
    }

    [Fact]
    public async Task Asynchronously_it_is_the_same_text()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary) { Text = new ToyTokenizer(Pieces) };
        var options = new GenerationOptions { MaxTokens = 40, Temperature = 1, Seed = 7, Drafter = Drafter.Medusa };
        DecodingStatistics? statistics = null;
        var text = new StringBuilder();
        await foreach (string piece in model.GenerateAsync("ab", options, all => statistics = all, TestContext.Current.CancellationToken)) text.Append(piece);
        Assert.Equal(string.Concat(model.Generate("ab", options, cancellation: TestContext.Current.CancellationToken)), text.ToString());
        Assert.Equal(40, statistics!.Tokens);

        using var cancellation = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (string _ in model.GenerateAsync("ab", options, cancellation: cancellation.Token)) await cancellation.CancelAsync();
        });
        Assert.Throws<OperationCanceledException>(() => model.Generate("ab", options, cancellation: cancellation.Token).First());
        Assert.Throws<ArgumentException>(() => model.Generate("", options, cancellation: TestContext.Current.CancellationToken));
        Assert.Throws<ArgumentException>(() => model.GenerateAsync("", options, cancellation: TestContext.Current.CancellationToken));
        Assert.Throws<ArgumentException>(() => model.GenerateTokens([], options, cancellation: TestContext.Current.CancellationToken));
    }

    /// <summary>A scripted text after the prompt "a", and its characters.</summary>
    private static (Sequence Sequence, string Text) Write(ToyModel model, int[] script, GenerationOptions options, string drafter)
    {
        using var batch = new DecodingBatch(model);
        options = options with
        {
            Processors = [new Script(1, script)],
            CustomDrafter = drafter switch
            {
                "oracular" => new Oracular([5, .. script], levels: 6, ranks: 2, rightRank: 1, Vocabulary),
                "noise" => new Noise(script.Length, levels: 3, ranks: 2, Vocabulary),
                _ => null,
            },
            TreePolicy = drafter == "oracular" ? TreePolicy.Choices([[0], [1], [1, 1], [1, 1, 1]]) : TreePolicy.Auto,
        };
        Sequence sequence = batch.Add([5], options);
        var text = new StringBuilder();
        while (batch.Step(TestContext.Current.CancellationToken)) text.Append(sequence.TakeText());
        return (sequence, text.ToString());
    }

    /// <summary>What each step of a scripted text gives out.</summary>
    private static List<string> Steps(ToyModel model, int[] script, string[] stops)
    {
        using var batch = new DecodingBatch(model);
        Sequence sequence = batch.Add([5], new GenerationOptions { Processors = [new Script(1, script)], MaxTokens = script.Length, StopStrings = stops });
        List<string> pieces = [];
        while (batch.Step(TestContext.Current.CancellationToken)) pieces.Add(sequence.TakeText());
        return pieces;
    }

    private static string Read(IEnumerable<int> tokens) => Encoding.UTF8.GetString([.. tokens.SelectMany(token => Pieces[token])]);

    private static string Cut(Random random, string text)
    {
        int start = random.Next(text.Length), length = random.Next(1, Math.Min(5, text.Length - start) + 1);
        return text.Substring(start, length).Trim('\ufffd') is { Length: > 0 } stop ? stop : "a";
    }

    /// <summary>The same, read anew after each token.</summary>
    private static (string Text, int Tokens, bool Stopped) Reference(int[] script, string[] stops)
    {
        for (int n = 1; n <= script.Length; n++)
        {
            // Bytes that may yet become a character are no text so far.
            Decoder decoder = Encoding.UTF8.GetDecoder();
            byte[] bytes = [.. script.Take(n).SelectMany(token => Pieces[token])];
            var chars = new char[bytes.Length + 4];
            string text = new(chars, 0, decoder.GetChars(bytes, chars, flush: false));
            int first = stops.Select(stop => text.IndexOf(stop, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(-1).Min();
            if (first >= 0) return (text[..first], n, true);
        }

        return (Read(script), script.Length, false);
    }
}
