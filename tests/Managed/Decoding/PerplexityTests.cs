using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Perplexity is the sum of the log-probabilities, however the text is fed.</summary>
public class PerplexityTests
{
    private const int Vocabulary = 23;

    public static TheoryData<string, bool> Models => new(from name in BackendsUnderTest.LosslessNames from softmax in new[] { false, true } select (name, softmax));

    [Theory, MemberData(nameof(Models))]
    public void It_is_the_sum_of_the_log_probabilities(string backendName, bool softmax)
    {
        using KernelBackend backend = BackendsUnderTest.Open(backendName);
        using var model = new ToyModel(backend, Vocabulary, softmax: softmax);
        int[] text = Text(150);
        double want = Nats(model, text);
        PerplexityResult got = Perplexity.Compute(model, text, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((149, 1), (got.Tokens, got.Windows));
        Close.To([want], [got.Nats], 1e-6);
        Close.To([Math.Exp(want / 149)], [got.Value], 1e-6);
        foreach (int chunk in new[] { 1, 7, 64, 149, 150, 1000 })
            Assert.Equal(got, Perplexity.Compute(model, text, chunk, cancellation: TestContext.Current.CancellationToken));
    }

    [Fact]
    public void A_text_longer_than_the_model_is_read_in_windows()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary, softmax: true, maxPositions: 10);
        int[] text = Text(25);
        PerplexityResult got = Perplexity.Compute(model, text, 4, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((9 + 9 + 4, 3), (got.Tokens, got.Windows));
        Close.To([Nats(model, text[..10]) + Nats(model, text[10..20]) + Nats(model, text[20..])], [got.Nats], 1e-6);
        // A last window of one token predicts nothing.
        Assert.Equal(Perplexity.Compute(model, text.AsSpan(0, 20), cancellation: TestContext.Current.CancellationToken), Perplexity.Compute(model, text.AsSpan(0, 21), cancellation: TestContext.Current.CancellationToken));
    }

    [Fact]
    public void Two_tokens_are_a_text()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        PerplexityResult got = Perplexity.Compute(model, [3, 4], cancellation: TestContext.Current.CancellationToken);
        Assert.Equal(1, got.Tokens);
        Close.To([Nats(model, [3, 4])], [got.Nats], 1e-6);
    }

    [Fact]
    public void What_is_no_text_is_refused()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        Refused([], "text: expected at least two tokens, got 0");
        Refused([1], "text: expected at least two tokens, got 1");
        Refused([1, 2, 23], "text: expected tokens from 0 to 22, got 23");
        Refused([-1, 2], "text: expected tokens from 0 to 22, got -1");
        Assert.Throws<ArgumentOutOfRangeException>(() => Perplexity.Compute(model, [1, 2], chunk: 0, cancellation: TestContext.Current.CancellationToken));
        using var tiny = new ToyModel(backend, Vocabulary, maxPositions: 1);
        Assert.StartsWith("model: expected at least two positions, got 1", Assert.Throws<ArgumentException>(() => Perplexity.Compute(tiny, [1, 2], cancellation: TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
        Assert.Equal(0, model.Forwards);

        void Refused(int[] text, string message) =>
            Assert.StartsWith(message, Assert.Throws<ArgumentException>(() => Perplexity.Compute(model, text, cancellation: TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void It_says_how_far_it_is_and_can_be_cancelled()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, Vocabulary);
        using var cancellation = new CancellationTokenSource();
        var progress = new Progress();
        Perplexity.Compute(model, Text(20), chunk: 6, progress, cancellation.Token);
        Assert.Equal([6, 12, 18, 19], progress.Reports);
        progress.At = (12, cancellation.Cancel);
        Assert.Throws<OperationCanceledException>(() => Perplexity.Compute(model, Text(20), chunk: 6, progress, cancellation.Token));
        Assert.Equal([6, 12, 18, 19, 6, 12], progress.Reports);
    }

    private static int[] Text(int length)
    {
        var random = new Random(length);
        return [.. Enumerable.Range(0, length).Select(_ => random.Next(Vocabulary))];
    }

    /// <summary>-Σ log p, token by token, in float64.</summary>
    private static double Nats(ToyModel model, int[] text)
    {
        using AttentionState state = model.CreateState(1, text.Length);
        var step = new Step();
        double nats = 0;
        for (int i = 0; i + 1 < text.Length; i++)
        {
            step.Clear();
            step.Advance(0, 1);
            double[] logits = Close.Widen(model.Backend.Download<float>(model.Forward(state, step, text.AsSpan(i, 1)).Logits));
            nats += Math.Log(logits.Sum(Math.Exp)) - logits[text[i + 1]];
        }

        return nats;
    }

    private sealed class Progress : IProgress<int>
    {
        public List<int> Reports { get; } = [];

        public (int Tokens, Action Act)? At { get; set; }

        public void Report(int value)
        {
            Reports.Add(value);
            if (At?.Tokens == value) At.Value.Act();
        }
    }
}
