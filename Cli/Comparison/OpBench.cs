using Treeline.Kernels;

namespace Treeline.Cli.Comparison;

/// <summary>What one op left on one backend: reals or integers.</summary>
/// <param name="Name">Which output, empty where there is only one.</param>
/// <param name="Reals">Its numbers, null where they are integers.</param>
/// <param name="Integers">Its integers, null where they are reals.</param>
internal sealed record OpOutput(string Name, float[]? Reals, int[]? Integers);

/// <summary>Runs one op on one backend, on inputs that are the same for every backend.</summary>
internal sealed class OpBench(KernelBackend backend) : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly Random _random = new(1);

    public KernelBackend Backend => backend;

    public Random Random => _random;

    public List<OpOutput> Outputs { get; } = [];

    /// <summary>Standard normal numbers.</summary>
    public float[] Numbers(int count)
    {
        var numbers = new float[count];
        for (int i = 0; i < count; i++)
            numbers[i] = (float)(Math.Sqrt(-2 * Math.Log(1 - _random.NextDouble())) * Math.Cos(2 * Math.PI * _random.NextDouble()));
        return numbers;
    }

    public DeviceTensor Reals(params ReadOnlySpan<int> shape) => Own(backend.Upload<float>(Numbers(Count(shape)), shape));

    public DeviceTensor Integers(params ReadOnlySpan<int> numbers) => Own(backend.Upload<int>(numbers, numbers.Length));

    public int[] Below(int limit, int count) => [.. Enumerable.Range(0, count).Select(_ => _random.Next(limit))];

    /// <summary>An output; what an op leaves unwritten must not look like a result.</summary>
    public DeviceTensor Output(params ReadOnlySpan<int> shape)
    {
        var unwritten = new float[Count(shape)];
        unwritten.AsSpan().Fill(float.NaN);
        return Own(backend.Upload<float>(unwritten, shape));
    }

    /// <summary>An output of integers, full of one that no op gives.</summary>
    public DeviceTensor IntegerOutput(params ReadOnlySpan<int> shape)
    {
        var unwritten = new int[Count(shape)];
        unwritten.AsSpan().Fill(int.MinValue);
        return Own(backend.Upload<int>(unwritten, shape));
    }

    /// <summary>Keeps an output for the comparison.</summary>
    public void Take(DeviceTensor output, string name = "") => Outputs.Add(output.Type.IsFloat()
        ? new OpOutput(name, backend.Download<float>(output), null)
        : new OpOutput(name, null, backend.Download<int>(output)));

    public T Own<T>(T disposable) where T : IDisposable
    {
        _owned.Add(disposable);
        return disposable;
    }

    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--) _owned[i].Dispose();
    }

    private static int Count(ReadOnlySpan<int> shape)
    {
        int count = 1;
        foreach (int size in shape) count *= size;
        return count;
    }
}
