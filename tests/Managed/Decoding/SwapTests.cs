using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>The shipped model's text does not depend on the backend, nor on a move from one to another half-way, up to a step whose two best logits are nearly equal.</summary>
public class SwapTests
{
    private const int Tokens = 40, Half = 17;               // a group of the model ends between them
    private const double Fair = 1e-3;                       // margin of two logits under which another rounding may choose the other token

    private static readonly Lazy<(int[] Prompt, int[] Text, int Sure)> Wanted = new(OnCpu);

    // ILGPU's CPU accelerator is for debugging: a whole model takes minutes there. Where the list holds nothing else, the specification stands in.
    public static TheoryData<string> Others { get; } = [.. BackendsUnderTest.Names.Where(name => name is not ("cpu" or "ilgpu-cpu")).DefaultIfEmpty("oracle")];

    public static TheoryData<string, string> Moves => new(from name in Others from start in new[] { name.Data, "cpu" } select (start, start == "cpu" ? name.Data : "cpu"));

    private static string Folder => Path.Combine(Golden.Repository, "models", "shakespeare-2m");

    [Fact]
    public void There_is_something_to_compare() => Assert.True(Wanted.Value.Sure > Half + 1, $"the text is sure up to token {Wanted.Value.Sure}");

    [Theory(SkipTestWithoutData = true), MemberData(nameof(Others))]
    public void The_text_is_the_one_of_the_cpu(string name)
    {
        (int[] prompt, int[] text, int sure) = Wanted.Value;
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using CausalModel model = CausalModel.Load(Folder, backend);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 1 });
        Sequence sequence = batch.Add(prompt, new() { MaxTokens = sure });
        batch.Run(TestContext.Current.CancellationToken);
        Assert.Equal(text[..sure], sequence.Generated.ToArray());
    }

    [Theory(SkipTestWithoutData = true), MemberData(nameof(Moves))]
    public void A_sequence_that_moves_half_way_goes_on_with_the_same_text(string start, string end)
    {
        (int[] prompt, int[] text, int sure) = Wanted.Value;
        using KernelBackend from = BackendsUnderTest.Open(start), to = BackendsUnderTest.Open(end);
        using CausalModel first = CausalModel.Load(Folder, from), second = CausalModel.Load(Folder, to);
        using var begun = new DecodingBatch(first, new DecodingBatchOptions { Slots = 1 });
        using var moved = new DecodingBatch(second, new DecodingBatchOptions { Slots = 1 });
        Sequence sequence = begun.Add(prompt, new() { MaxTokens = sure });
        while (sequence.Generated.Length < Half) begun.Step(TestContext.Current.CancellationToken);
        using var saved = new MemoryStream();
        sequence.Save(saved);
        saved.Position = 0;
        Sequence restored = moved.Restore(saved);
        Assert.Equal(Half, restored.Generated.Length);
        moved.Run(TestContext.Current.CancellationToken);
        Assert.Equal(text[..sure], restored.Generated.ToArray());
    }

    /// <summary>The text of cpu, and how many of its tokens no rounding may change.</summary>
    private static (int[] Prompt, int[] Text, int Sure) OnCpu()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using CausalModel model = CausalModel.Load(Folder, backend);
        int[] prompt = model.Tokenizer!.Encode("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n");
        var margins = new MarginReader();
        int[] text = SpeculationTests.Generate(model, prompt, new() { MaxTokens = Tokens, Processors = [margins] });
        int close = margins.Seen.FindIndex(margin => margin < Fair);
        return (prompt, text, close >= 0 ? close : text.Length);
    }

    private sealed class MarginReader : ILogitsProcessor
    {
        public List<double> Seen { get; } = [];

        public void Process(ReadOnlySpan<int> path, Span<float> logits)
        {
            float[] sorted = logits.ToArray();
            Array.Sort(sorted);
            Seen.Add((double)sorted[^1] - sorted[^2]);
        }
    }
}
