using Treeline.Kernels;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>A small model with random weights: logits are a function of the token's whole path, group boundaries included. Fails and spoils logits on request.</summary>
internal sealed class ToyModel : CausalModel
{
    private const int Heads = 2;
    private const int HeadDim = 8;
    private const int Hidden = Heads * HeadDim;
    private readonly List<IDisposable> _owned = [];
    private readonly DeviceTensor _embedding, _gain, _taps, _alpha;
    private readonly WeightMatrix _query, _key, _value, _head;
    private readonly AttentionLayer _layer;
    private readonly Dictionary<int, Scratch> _scratch = [];

    public ToyModel(KernelBackend backend, int vocabulary = 23, int seed = 1, bool softmax = false, bool medusa = true, int maxPositions = int.MaxValue, double sharpness = 1.5)
    {
        Backend = backend;
        VocabularySize = vocabulary;
        MaxPositions = maxPositions;
        var random = new Random(seed);
        AttentionSpec spec = softmax ? AttentionSpec.Softmax(Heads, Heads, HeadDim) : AttentionSpec.Augmented(Heads, Heads, HeadDim, groupSize: 16, convTaps: 5);
        AttentionSpecs = [spec];
        _embedding = Own(backend.Upload<float>(random.Floats(vocabulary * Hidden), vocabulary, Hidden));
        _gain = Own(backend.Upload<float>(Enumerable.Repeat(1f, Hidden).ToArray(), Hidden));
        _query = Matrix(random, Hidden, 0.4);
        _key = Matrix(random, Hidden, 0.4);
        _value = Matrix(random, Hidden, 0.4);
        _head = Matrix(random, vocabulary, sharpness / Math.Sqrt(Hidden));
        _taps = Own(backend.Upload<float>(random.Floats(Heads * 5, 0.5), Heads, 5));
        _alpha = Own(backend.Upload<float>([0.3f], 1));
        _layer = Own(backend.Bind(spec, softmax ? null : new Dictionary<string, DeviceTensor> { ["alpha"] = _alpha, ["taps"] = _taps }));
        Medusa = medusa ? new ToyHeads(backend, vocabulary, Hidden, heads: 4, random) : null;
        Config = new ModelConfig
        {
            ModelType = "toy",
            VocabularySize = vocabulary,
            HiddenSize = Hidden,
            FeedForwardSize = 0,
            Layers = 1,
            QueryHeads = Heads,
            KeyValueHeads = Heads,
            HeadDim = HeadDim,
            MaxPositions = maxPositions,
            NormEpsilon = 1e-5f,
            Activation = "silu",
        };
    }

    public override ModelConfig Config { get; }

    public override KernelBackend Backend { get; }

    public override TextTokenizer? Tokenizer => Text;

    public override MedusaHeads? Medusa { get; }

    public override IReadOnlyList<AttentionSpec> AttentionSpecs { get; }

    public override int VocabularySize { get; }

    public override int MaxPositions { get; }

    public override IReadOnlyCollection<int> StopTokens => Stops;

    public int[] Stops { get; set; } = [];

    public TextTokenizer? Text { get; set; }

    /// <summary>The next pass that feeds this token fails after its attention; the pass after that is whole again.</summary>
    public int? FailOnceAt { get; set; }

    /// <summary>Logits after this token are not numbers.</summary>
    public int? PoisonAfter { get; set; }

    protected override ForwardOutput ForwardCore(AttentionState state, Step step, ReadOnlySpan<int> tokens)
    {
        Scratch s = ScratchFor(step.Tokens, step.LogitCount);
        state.Begin(step);
        int n = step.Tokens;
        Backend.Write(s.Ids, tokens);
        Backend.Embedding(_embedding, s.Ids, s.Stream);
        Backend.Linear(s.Stream, _query, null, s.Query);
        Backend.Linear(s.Stream, _key, null, s.Key);
        Backend.Linear(s.Stream, _value, null, s.Value);
        var inputs = new AttentionInputs(s.QueryHeads, s.KeyHeads, s.ValueHeads);
        Backend.Attend(_layer, state[0], step, inputs, s.AttendedHeads);
        if (FailOnceAt is { } bad && tokens.Contains(bad))
        {
            FailOnceAt = null;
            state.Abandon(step);
            throw new InvalidOperationException("toy: a kernel failed");
        }

        Backend.Add(s.Stream, s.Attended, s.Stream);
        state.Complete(step);
        if (step.LogitCount > 0)
        {
            Backend.Write(s.Rows, step.LogitRows);
            Backend.Embedding(s.Stream, s.Rows, s.Hidden);
            Backend.RmsNorm(s.Hidden, _gain, 1e-5f, s.Hidden);
            Backend.Linear(s.Hidden, _head, null, s.Logits);
            if (PoisonAfter is { } token) Poison(step, tokens, token, s.Logits);
        }

        return new ForwardOutput(s.Logits, s.Hidden);
    }

    protected override void Dispose(bool disposing)
    {
        foreach (Scratch scratch in _scratch.Values) scratch.Dispose();
        foreach (IDisposable owned in _owned) owned.Dispose();
        Medusa?.Dispose();
    }

    private void Poison(Step step, ReadOnlySpan<int> tokens, int token, DeviceTensor logits)
    {
        float[] numbers = Backend.Download<float>(logits);
        for (int row = 0; row < step.LogitCount; row++)
            if (tokens[step.LogitRows[row]] == token) numbers[row * VocabularySize + 3] = float.NaN;
        Backend.Write<float>(logits, numbers);
    }

    private Scratch ScratchFor(int tokens, int rows)
    {
        int key = tokens * 4096 + rows;
        if (!_scratch.TryGetValue(key, out Scratch? scratch)) _scratch[key] = scratch = new Scratch(Backend, tokens, rows, VocabularySize);
        return scratch;
    }

    private T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }

    private WeightMatrix Matrix(Random random, int outputs, double scale)
    {
        using DeviceTensor weight = Backend.Upload<float>(random.Floats(outputs * Hidden, scale), outputs, Hidden);
        return Own(Backend.Pack(weight, WeightForm.Float32));
    }

    private sealed class Scratch : IDisposable
    {
        public Scratch(KernelBackend backend, int tokens, int rows, int vocabulary)
        {
            Ids = backend.Allocate(ElementType.Int32, tokens);
            Rows = backend.Allocate(ElementType.Int32, rows);
            Stream = backend.Allocate(ElementType.Float32, tokens, ToyModel.Hidden);
            Query = backend.Allocate(ElementType.Float32, tokens, ToyModel.Hidden);
            Key = backend.Allocate(ElementType.Float32, tokens, ToyModel.Hidden);
            Value = backend.Allocate(ElementType.Float32, tokens, ToyModel.Hidden);
            Attended = backend.Allocate(ElementType.Float32, tokens, ToyModel.Hidden);
            Hidden = backend.Allocate(ElementType.Float32, rows, ToyModel.Hidden);
            Logits = backend.Allocate(ElementType.Float32, rows, vocabulary);
            QueryHeads = Query.View(tokens, Heads, HeadDim);
            KeyHeads = Key.View(tokens, Heads, HeadDim);
            ValueHeads = Value.View(tokens, Heads, HeadDim);
            AttendedHeads = Attended.View(tokens, Heads, HeadDim);
        }

        public DeviceTensor Ids { get; }

        public DeviceTensor Rows { get; }

        public DeviceTensor Stream { get; }

        public DeviceTensor Query { get; }

        public DeviceTensor Key { get; }

        public DeviceTensor Value { get; }

        public DeviceTensor Attended { get; }

        public DeviceTensor Hidden { get; }

        public DeviceTensor Logits { get; }

        public DeviceTensor QueryHeads { get; }

        public DeviceTensor KeyHeads { get; }

        public DeviceTensor ValueHeads { get; }

        public DeviceTensor AttendedHeads { get; }

        public void Dispose()
        {
            foreach (DeviceTensor tensor in (DeviceTensor[])[Ids, Rows, Stream, Query, Key, Value, Attended, Hidden, Logits]) tensor.Dispose();
        }
    }
}

/// <summary>Heads with random weights: wrong more often than not, right often enough among ten of few.</summary>
internal sealed class ToyHeads : MedusaHeads
{
    private readonly KernelBackend _backend;
    private readonly WeightMatrix _weight;
    private readonly int _vocabulary;
    private readonly Dictionary<int, (DeviceTensor Output, DeviceTensor Rows)> _outputs = [];

    public ToyHeads(KernelBackend backend, int vocabulary, int hidden, int heads, Random random)
    {
        _backend = backend;
        _vocabulary = vocabulary;
        Count = heads;
        using DeviceTensor weight = backend.Upload<float>(random.Floats(heads * vocabulary * hidden), heads * vocabulary, hidden);
        _weight = backend.Pack(weight, WeightForm.Float32);
    }

    public override int Count { get; }

    public override DeviceTensor Forward(DeviceTensor hidden)
    {
        if (!_outputs.TryGetValue(hidden.Rows, out (DeviceTensor Output, DeviceTensor Rows) output))
        {
            DeviceTensor wide = _backend.Allocate(ElementType.Float32, hidden.Rows, Count * _vocabulary);
            _outputs[hidden.Rows] = output = (wide, wide.View(hidden.Rows * Count, _vocabulary));
        }

        _backend.Linear(hidden, _weight, null, output.Output);
        return output.Rows;
    }

    protected override void Dispose(bool disposing)
    {
        foreach ((DeviceTensor output, _) in _outputs.Values) output.Dispose();
        _weight.Dispose();
    }
}

/// <summary>One piece of text a token.</summary>
internal sealed class ToyTokenizer(params byte[][] pieces) : TextTokenizer
{
    /// <summary>Token i is the i-th letter.</summary>
    public static ToyTokenizer Letters(int vocabulary) => new([.. Enumerable.Range(0, vocabulary).Select(i => new[] { (byte)('a' + i) })]);

    public override int VocabularySize => pieces.Length;

    public override int[] Encode(string text) => [.. text.Select(c => Array.FindIndex(pieces, piece => piece.Length == 1 && piece[0] == c))];

    public override ReadOnlyMemory<byte> Bytes(int token) => pieces[token];
}
