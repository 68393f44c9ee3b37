using System.Numerics.Tensors;
using BenchmarkDotNet.Attributes;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>What follows the logits of a tree, against one pass over them by the platform's library.</summary>
[MemoryDiagnoser]
public class SelectBench
{
    private const int Vocabulary = 32_000, Candidates = 10;

    private KernelBackend _backend = null!;
    private float[] _host = null!;
    private DeviceTensor _logits = null!, _tokens = null!, _values = null!, _indices = null!;
    private SamplingRow[] _rows = null!;

    [Params(1, 63)]
    public int Rows { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _backend = Backends.Open("cpu");
        var random = new Random(1);
        _host = [.. Enumerable.Range(0, Rows * Vocabulary).Select(_ => 10 * random.NextSingle())];
        _logits = _backend.Upload<float>(_host, Rows, Vocabulary);
        _tokens = _backend.Allocate(ElementType.Int32, Rows);
        _values = _backend.Allocate(ElementType.Float32, Rows, Candidates);
        _indices = _backend.Allocate(ElementType.Int32, Rows, Candidates);
        _rows = [.. Enumerable.Range(0, Rows).Select(i => new SamplingRow(Seed: 1, Position: i, Temperature: 0.8f, TopK: 40, TopP: 0.95f, MinP: 0))];
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        foreach (DeviceTensor tensor in (DeviceTensor[])[_logits, _tokens, _values, _indices]) tensor.Dispose();
        _backend.Dispose();
    }

    [Benchmark(Baseline = true)]
    public float PlainMax() => TensorPrimitives.Max(_host);

    [Benchmark]
    public void ArgMax() => _backend.ArgMax(_logits, _tokens);

    [Benchmark]
    public void TopK() => _backend.TopK(_logits, _values, _indices);

    [Benchmark]
    public void Sample() => _backend.Sample(_logits, _rows, _tokens);
}
