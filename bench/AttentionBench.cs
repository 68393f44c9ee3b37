using BenchmarkDotNet.Attributes;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>Augmented linear attention against softmax over the same past: one token (decoding), a small tree, Medusa's tree.</summary>
[MemoryDiagnoser]
public class AttentionBench
{
    private const int Heads = 32, HeadDim = 128;            // LLaMA-7B

    private KernelBackend _backend = null!;
    private AttentionLoad _softmax = null!, _augmented = null!;
    private TokenTree _tree = null!;

    [Params(1, 16, 63)]
    public int Tokens { get; set; }

    [Params(1000, 8000)]
    public int Past { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _backend = Backends.Open("cpu");
        _softmax = new AttentionLoad(_backend, AttentionSpec.Softmax(Heads, Heads, HeadDim), Past);
        _augmented = new AttentionLoad(_backend, AttentionSpec.Augmented(Heads, Heads, HeadDim, groupSize: 64), Past);
        _tree = Trees.Of(Tokens);
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _softmax.Dispose();
        _augmented.Dispose();
        _backend.Dispose();
    }

    [Benchmark(Baseline = true)]
    public void Softmax() => _softmax.Verify(_tree);

    [Benchmark]
    public void Augmented() => _augmented.Verify(_tree);
}
