using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>A pass that fails half-way: its moving sequences are broken and say so, the others go on.</summary>
public sealed class FailingStepTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly KernelBackend _backend = BackendsUnderTest.Open("cpu");
    private readonly FailingModel _model;
    private readonly AttentionState _state;
    private readonly Step _step = new();

    public FailingStepTests()
    {
        new TinyCheckpoint("llama", linear: true).Save(_folder.Path);
        _model = new FailingModel(ModelConfig.Load(_folder.Path), new ModelWeights(_backend, Checkpoint.Open(_folder.Path), form: null));
        _state = _model.CreateState(3, 100);
        for (int slot = 0; slot < 3; slot++) Advance(slot, 1, 2, 3);
    }

    public void Dispose()
    {
        _state.Dispose();
        _model.Dispose();
        _backend.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Before_the_first_layer_nothing_moves()
    {
        byte[] before = Snapshot(0);
        _model.FailAt = -1;
        Assert.Equal("a kernel failed", Assert.Throws<InvalidTimeZoneException>(() => Advance(0, 4)).Message);
        Assert.Contains("has failed", Assert.Throws<InvalidOperationException>(() => _state.Complete(_step)).Message, StringComparison.Ordinal);
        Assert.False(_state.IsBroken(0));
        Assert.Equal(before, Snapshot(0));
        Advance(0, 4);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void Between_layers_what_was_moving_is_broken_until_it_is_mended(int layer)
    {
        byte[] moving = Snapshot(0), verified = Snapshot(1);
        float[] want = Advance(2, 4, 5);
        _model.FailAt = layer;
        _step.Clear();
        _step.Advance(0, 2);
        _step.Verify(1, TokenTree.FromParents([-1, 0, 0]));
        Assert.Throws<InvalidTimeZoneException>(() => _model.Forward(_state, _step, [4, 5, 4, 5, 6]));

        Assert.Contains("has failed", Assert.Throws<InvalidOperationException>(() => _state.Complete(_step)).Message, StringComparison.Ordinal);
        Assert.True(_state.IsBroken(0));
        Assert.Contains("slot 0 was left half-written", Assert.Throws<BrokenSlotException>(() => Advance(0, 6)).Message, StringComparison.Ordinal);
        Assert.Equal(verified, Snapshot(1));
        Assert.Equal(want, Advance(1, 4, 5));
        using (var bytes = new MemoryStream(moving)) _state.Restore(0, bytes);
        Assert.Equal(want, Advance(0, 4, 5));
    }

    private float[] Advance(int slot, params int[] ids)
    {
        _step.Clear();
        _step.Advance(slot, ids.Length);
        return _backend.Download<float>(_model.Forward(_state, _step, ids).Logits);
    }

    private byte[] Snapshot(int slot)
    {
        using var bytes = new MemoryStream();
        _state.Snapshot(slot, bytes);
        return bytes.ToArray();
    }

    /// <summary>A model whose layers do nothing but attend, and that fails once where it is told to.</summary>
    private sealed class FailingModel(ModelConfig config, ModelWeights weights) : DecoderModel(config, weights, LlamaModel.Names(weights), default)
    {
        /// <summary>The layer whose feed-forward part fails, -1: the embedding; null: nothing does.</summary>
        public int? FailAt { get; set; }

        public override int MaxPositions => int.MaxValue;

        protected override void Embed(DeviceTensor ids, DeviceTensor positions, DeviceTensor stream, DeviceTensor scratch)
        {
            Fail(-1);
            Backend.Embedding(Embedding, ids, stream);
        }

        protected override void Project(int layer, DeviceTensor input, DeviceTensor query, DeviceTensor key)
        {
            float[] numbers = Backend.Download<float>(input), fused = new float[Fused.First(input.Rows).Count];
            for (int i = 0; i < fused.Length; i++) fused[i] = numbers[i % numbers.Length];
            Backend.Write<float>(Fused.First(input.Rows), fused);
        }

        protected override void FeedForward(int layer, DeviceTensor rows) => Fail(layer);

        private void Fail(int at)
        {
            if (FailAt != at) return;
            FailAt = null;
            throw new InvalidTimeZoneException("a kernel failed");
        }
    }
}
