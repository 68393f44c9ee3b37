using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>Something like decoding: a few layers of linear attention and feed-forward, one token a step, the choice read back.</summary>
/// <remarks>All weights are zero: a product takes as long with them. Each layer has its own, 71 MB together, so that they come from memory as a model's do.</remarks>
internal sealed class ProbeWorkload : IDisposable
{
    private const int Layers = 4, Hidden = 1024, Wide = 3072, Vocabulary = 4096, QueryHeads = 16, KeyValueHeads = 4, HeadDim = 64;
    private const int Queries = QueryHeads * HeadDim, Keys = KeyValueHeads * HeadDim;

    private readonly KernelBackend _backend;
    private readonly List<IDisposable> _owned = [];
    private readonly (AttentionLayer Attention, WeightMatrix Fused, WeightMatrix Output, WeightMatrix Up, WeightMatrix Down)[] _layers;
    private readonly WeightMatrix _head;
    private readonly AttentionState _state;
    private readonly DeviceTensor _gain, _stream, _normed, _fused, _attended, _wide, _logits, _token;
    private readonly AttentionInputs _inputs;
    private readonly Step _step = new();
    private readonly int[] _chosen = new int[1];

    public ProbeWorkload(KernelBackend backend)
    {
        _backend = backend;
        try
        {
            AttentionSpec spec = AttentionSpec.LocalGlobal(QueryHeads, KeyValueHeads, HeadDim, groupSize: 64);
            var weights = new Dictionary<string, DeviceTensor> { ["alpha"] = New(ElementType.Float32, 1) };
            _layers = [.. Enumerable.Range(0, Layers).Select(_ => (Own(backend.Bind(spec, weights)),
                Weight(Queries + 2 * Keys, Hidden), Weight(Hidden, Queries), Weight(Wide, Hidden), Weight(Hidden, Wide)))];
            _head = Weight(Vocabulary, Hidden);
            _state = Own(backend.CreateState([.. Enumerable.Repeat(spec, Layers)], slots: 1, capacity: 64));
            _gain = New(ElementType.Float32, Hidden);
            _stream = New(ElementType.Float32, 1, Hidden);
            _normed = New(ElementType.Float32, 1, Hidden);
            _fused = New(ElementType.Float32, 1, Queries + 2 * Keys);
            _attended = New(ElementType.Float32, 1, Queries);
            _wide = New(ElementType.Float32, 1, Wide);
            _logits = New(ElementType.Float32, 1, Vocabulary);
            _token = New(ElementType.Int32, 1);
            _inputs = new AttentionInputs(_fused.Slice(1, 0, Queries).View(1, QueryHeads, HeadDim),
                _fused.Slice(1, Queries, Keys).View(1, KeyValueHeads, HeadDim), _fused.Slice(1, Queries + Keys, Keys).View(1, KeyValueHeads, HeadDim));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>One token through all layers.</summary>
    public void Step()
    {
        const float Epsilon = 1e-5f;
        _step.Clear();
        _step.Advance(slot: 0, tokens: 1);
        for (int i = 0; i < Layers; i++)
        {
            _backend.RmsNorm(_stream, _gain, Epsilon, _normed);
            _backend.Linear(_normed, _layers[i].Fused, null, _fused);
            _backend.Attend(_layers[i].Attention, _state[i], _step, _inputs, _attended.View(1, QueryHeads, HeadDim));
            _backend.Linear(_attended, _layers[i].Output, null, _normed);
            _backend.Add(_stream, _normed, _stream);
            _backend.RmsNorm(_stream, _gain, Epsilon, _normed);
            _backend.Linear(_normed, _layers[i].Up, null, _wide);
            _backend.Silu(_wide, _wide);
            _backend.Linear(_wide, _layers[i].Down, null, _normed);
            _backend.Add(_stream, _normed, _stream);
        }

        _state.Complete(_step);
        _backend.Linear(_stream, _head, null, _logits);
        _backend.ArgMax(_logits, _token);
        _backend.Read(_token, _chosen.AsSpan());
    }

    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--) _owned[i].Dispose();
        _owned.Clear();
    }

    private WeightMatrix Weight(int outputs, int inputs)
    {
        using DeviceTensor zeros = _backend.Allocate(ElementType.BFloat16, outputs, inputs);
        return Own(_backend.Pack(zeros, WeightForm.BFloat16));
    }

    private DeviceTensor New(ElementType type, params ReadOnlySpan<int> shape) => Own(_backend.Allocate(type, shape));

    private T Own<T>(T disposable) where T : IDisposable
    {
        _owned.Add(disposable);
        return disposable;
    }
}
