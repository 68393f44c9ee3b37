using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>One attention layer with a past and a tree to verify, random numbers throughout.</summary>
internal sealed class AttentionLoad : IDisposable
{
    private const int Chunk = 512;

    private readonly KernelBackend _backend;
    private readonly AttentionSpec _spec;
    private readonly AttentionState _state;
    private readonly AttentionLayer _layer;
    private readonly List<DeviceTensor> _owned = [];
    private readonly AttentionInputs _inputs;
    private readonly DeviceTensor _output;
    private readonly Step _step = new();

    /// <summary>Advances to a past of some length.</summary>
    public AttentionLoad(KernelBackend backend, AttentionSpec spec, int past)
    {
        (_backend, _spec) = (backend, spec);
        _state = backend.CreateState([spec], slots: 1, capacity: past + TokenTree.MaxNodes);
        var weights = Attentions.Find(spec.Attention)!.Weights(spec).ToDictionary(weight => weight.Name, weight => Random([.. weight.Shape]));
        _layer = backend.Bind(spec, weights);
        _inputs = new AttentionInputs(Random(Chunk, spec.QueryHeads, spec.HeadDim), Random(Chunk, spec.KeyValueHeads, spec.HeadDim), Random(Chunk, spec.KeyValueHeads, spec.ValueDim));
        _output = Random(Chunk, spec.QueryHeads, spec.ValueDim);
        for (int at = 0; at < past; at += Chunk)
        {
            _step.Clear();
            _step.Advance(0, Math.Min(Chunk, past - at));
            Attend();
        }
    }

    /// <summary>Bytes of the sequence's state.</summary>
    public long StateBytes => _state.Bytes(0);

    /// <summary>Verifies a tree; the state stays where it is.</summary>
    public void Verify(TokenTree tree)
    {
        Queue(tree);
        _backend.Synchronize();                             // a launch is not a result
    }

    /// <summary>The same, without waiting for the device.</summary>
    public void Queue(TokenTree tree)
    {
        _step.Clear();
        _step.Verify(0, tree);
        Attend();
    }

    /// <summary>Moves the sequence on by some tokens of a chunk.</summary>
    public void Advance(int tokens)
    {
        QueueAdvance(tokens);
        _backend.Synchronize();
    }

    /// <summary>The same, without waiting for the device.</summary>
    public void QueueAdvance(int tokens)
    {
        _step.Clear();
        _step.Advance(0, tokens);
        Attend();
    }

    public void Dispose()
    {
        _layer.Dispose();
        _state.Dispose();
        foreach (DeviceTensor tensor in _owned) tensor.Dispose();
    }

    private void Attend()
    {
        int n = _step.Tokens;
        _backend.Attend(_layer, _state[0], _step, new AttentionInputs(_inputs.Query.First(n), _inputs.Key.First(n), _inputs.Value.First(n)), _output.First(n));
        _state.Complete(_step);
    }

    private DeviceTensor Random(params ReadOnlySpan<int> shape)
    {
        _owned.Add(RandomTensor.Of(_backend, seed: _owned.Count, shape));
        return _owned[^1];
    }
}
