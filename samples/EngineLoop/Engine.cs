using Treeline.Kernels;

/// <summary>A small decoder with random weights, written on the kernels alone: augmented linear attention, grouped-query heads, rotary embedding, gated feed-forward.</summary>
internal sealed class Engine : IDisposable
{
    public const int Vocabulary = 97;
    private const int Hidden = 64, Heads = 4, KeyValueHeads = 2, HeadDim = 16, FeedForward = 96, MaxTokens = 64;
    private const int QueryWidth = Heads * HeadDim, KeyWidth = KeyValueHeads * HeadDim;

    private static readonly AttentionSpec Spec = AttentionSpec.Augmented(Heads, KeyValueHeads, HeadDim, groupSize: 16, convTaps: 8);
    private static readonly RotarySpec Turn = new() { RotaryDim = HeadDim };

    private readonly KernelBackend _backend;
    private readonly Arena _memory;
    private readonly Layer[] _layers;
    private readonly DeviceTensor _table, _finalGain;
    private readonly WeightMatrix _head;
    private readonly DeviceTensor _ids, _rows, _positions, _cosines, _sines;
    private readonly DeviceTensor _x, _normed, _projected, _mixed, _added, _gated, _wanted, _logits;

    public Engine(KernelBackend backend, int layers, int slots)
    {
        _backend = backend;
        _memory = new Arena(backend, 1 << 20);
        var random = new Random(7);
        _layers = [.. Enumerable.Range(0, layers).Select(_ => new Layer(backend, _memory, random))];
        _table = _memory.Random(random, 0, 1, Vocabulary, Hidden);
        _finalGain = _memory.Random(random, 1, 0.1f, Hidden);
        _head = backend.Pack(_table, WeightForm.Float32);
        State = backend.CreateState([.. _layers.Select(_ => Spec)], slots, capacity: 1024);

        _ids = _memory.Integers(MaxTokens);
        _rows = _memory.Integers(MaxTokens);
        _positions = _memory.Integers(MaxTokens);
        _cosines = _memory.Floats(MaxTokens, HeadDim / 2);
        _sines = _memory.Floats(MaxTokens, HeadDim / 2);
        _x = _memory.Floats(MaxTokens, Hidden);
        _normed = _memory.Floats(MaxTokens, Hidden);
        _projected = _memory.Floats(MaxTokens, QueryWidth + 2 * KeyWidth);
        _mixed = _memory.Floats(MaxTokens, Heads, HeadDim);
        _added = _memory.Floats(MaxTokens, Hidden);
        _gated = _memory.Floats(MaxTokens, 2 * FeedForward);
        _wanted = _memory.Floats(MaxTokens, Hidden);
        _logits = _memory.Floats(MaxTokens, Vocabulary);
    }

    /// <summary>All layers' past, one slot a sequence.</summary>
    public AttentionState State { get; }

    /// <summary>One forward pass: a step goes in, logits of the rows that want them come out.</summary>
    public DeviceTensor Forward(Step step, ReadOnlySpan<int> tokens)
    {
        int n = step.Tokens;
        State.Begin(step);                                  // fixes the positions, refuses what cannot be done
        _backend.Write(_ids.First(n), tokens);
        _backend.Write(_positions.First(n), step.Positions);
        _backend.Embedding(_table, _ids.First(n), _x.First(n));
        _backend.RotaryAngles(Turn, _positions.First(n), _cosines.First(n), _sines.First(n));

        for (int i = 0; i < _layers.Length; i++) Block(_layers[i], State[i], step, n);
        State.Complete(step);

        int wanted = step.LogitCount;
        _backend.Write(_rows.First(wanted), step.LogitRows);
        _backend.Embedding(_x.First(n), _rows.First(wanted), _wanted.First(wanted));
        _backend.RmsNorm(_wanted.First(wanted), _finalGain, 1e-5f, _normed.First(wanted));
        _backend.Linear(_normed.First(wanted), _head, null, _logits.First(wanted));
        return _logits.First(wanted);
    }

    public void Dispose()
    {
        State.Dispose();
        _head.Dispose();
        foreach (Layer layer in _layers) layer.Dispose();
        _memory.Dispose();
    }

    private void Block(Layer layer, LayerState past, Step step, int n)
    {
        DeviceTensor x = _x.First(n), normed = _normed.First(n), projected = _projected.First(n), added = _added.First(n), gated = _gated.First(n);

        // Query, key and value are parts of one product's rows: sliced, not copied.
        _backend.RmsNorm(x, layer.AttentionGain, 1e-5f, normed);
        _backend.Linear(normed, layer.QueryKeyValue, null, projected);
        DeviceTensor query = projected.Slice(1, 0, QueryWidth).View(n, Heads, HeadDim);
        DeviceTensor key = projected.Slice(1, QueryWidth, KeyWidth).View(n, KeyValueHeads, HeadDim);
        DeviceTensor value = projected.Slice(1, QueryWidth + KeyWidth, KeyWidth).View(n, KeyValueHeads, HeadDim);
        _backend.Rotary(query, _cosines.First(n), _sines.First(n), RotaryPairs.Halves);
        _backend.Rotary(key, _cosines.First(n), _sines.First(n), RotaryPairs.Halves);
        _backend.Attend(layer.Attention, past, step, new AttentionInputs(query, key, value), _mixed.First(n));
        _backend.Linear(_mixed.First(n).View(n, QueryWidth), layer.Output, null, added);
        _backend.Add(x, added, x);

        _backend.RmsNorm(x, layer.FeedForwardGain, 1e-5f, normed);
        _backend.Linear(normed, layer.GateUp, null, gated);
        DeviceTensor gate = gated.Slice(1, 0, FeedForward), up = gated.Slice(1, FeedForward, FeedForward);
        _backend.SiluGate(gate, up, gate);
        _backend.Linear(gate, layer.Down, null, added);
        _backend.Add(x, added, x);
    }

    private sealed class Layer(KernelBackend backend, Arena memory, Random random) : IDisposable
    {
        public DeviceTensor AttentionGain { get; } = memory.Random(random, 1, 0.1f, Hidden);

        public DeviceTensor FeedForwardGain { get; } = memory.Random(random, 1, 0.1f, Hidden);

        public WeightMatrix QueryKeyValue { get; } = backend.Pack(memory.Random(random, 0, 0.3f, QueryWidth + 2 * KeyWidth, Hidden), WeightForm.Float32);

        public WeightMatrix Output { get; } = backend.Pack(memory.Random(random, 0, 0.3f, Hidden, QueryWidth), WeightForm.Float32);

        public WeightMatrix GateUp { get; } = backend.Pack(memory.Random(random, 0, 0.3f, 2 * FeedForward, Hidden), WeightForm.BFloat16);

        public WeightMatrix Down { get; } = backend.Pack(memory.Random(random, 0, 0.3f, Hidden, FeedForward), WeightForm.BFloat16);

        public AttentionLayer Attention { get; } = backend.Bind(Spec, new Dictionary<string, DeviceTensor>
        {
            ["alpha"] = memory.Random(random, 0.5f, 0, 1),
            ["taps"] = memory.Random(random, 0, 0.3f, Heads, 8),
        });

        public void Dispose()
        {
            Attention.Dispose();
            QueryKeyValue.Dispose();
            Output.Dispose();
            GateUp.Dispose();
            Down.Dispose();
        }
    }
}
