using System.Runtime.InteropServices;
using BenchmarkDotNet.Attributes;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>A product against reading as many bytes: with few rows the weights' way through memory is all there is.</summary>
[MemoryDiagnoser]
public unsafe class LinearBench
{
    private const int Inputs = 2048, Outputs = 8192;

    private KernelBackend _backend = null!;
    private WeightMatrix _weight = null!;
    private DeviceTensor _input = null!, _output = null!;
    private float* _buffer;

    [Params(1, 16, 63)]
    public int Rows { get; set; }

    [Params(WeightForm.Float32, WeightForm.BFloat16, WeightForm.Int8, WeightForm.Int4)]
    public WeightForm Form { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _backend = Backends.Open("cpu");
        using DeviceTensor weight = _backend.Allocate(ElementType.Float32, Outputs, Inputs);
        _weight = _backend.Pack(weight, Form);
        _input = _backend.Allocate(ElementType.Float32, Rows, Inputs);
        _output = _backend.Allocate(ElementType.Float32, Rows, Outputs);
        _buffer = Machine.Buffer(_weight.Bytes / sizeof(float));
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _input.Dispose();
        _output.Dispose();
        _weight.Dispose();
        _backend.Dispose();
        NativeMemory.AlignedFree(_buffer);
    }

    [Benchmark(Baseline = true)]
    public float Read() => Machine.Read(_buffer, _weight.Bytes / sizeof(float));

    [Benchmark]
    public void Linear() => _backend.Linear(_input, _weight, null, _output);
}
