using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Host numbers of one argument: shape, storage, and how many foreign numbers lie between its rows.</summary>
internal sealed record Argument(int[] Shape, float[] Numbers, ElementType Type = ElementType.Float32, int Gap = 0)
{
    public static Argument Random(int seed, ElementType type, int gap, params int[] shape) =>
        new(shape, new Random(seed).Floats(shape.Aggregate(1, (a, b) => a * b)), type, gap);

    /// <summary>Rows first to end.</summary>
    public Argument Rows(int first, int end)
    {
        int row = Numbers.Length / Shape[0];
        return this with { Shape = [end - first, .. Shape[1..]], Numbers = Numbers[(first * row)..(end * row)] };
    }
}

/// <summary>Runs single ops on one backend from host numbers; on host backends all memory is foreign and ends where nothing more may be touched.</summary>
internal sealed class OpRig(KernelBackend backend, bool owner = true) : IDisposable
{
    private const float Untouched = 12345;                  // what lies between rows
    private readonly List<IDisposable> _owned = [];
    private readonly List<(DeviceTensor Whole, int Used)> _gaps = [];

    public KernelBackend Backend => backend;

    public DeviceTensor Upload(Argument argument)
    {
        DeviceTensor tensor = Strided(argument.Type, argument.Gap, argument.Shape);
        switch (argument.Type)
        {
            case ElementType.BFloat16: backend.Write<BFloat16>(tensor, Array.ConvertAll(argument.Numbers, x => (BFloat16)x)); break;
            case ElementType.Float16: backend.Write<Half>(tensor, Array.ConvertAll(argument.Numbers, x => (Half)x)); break;
            default: backend.Write<float>(tensor, argument.Numbers); break;
        }

        return tensor;
    }

    public DeviceTensor Upload(params int[] numbers)
    {
        DeviceTensor tensor = Strided(ElementType.Int32, 0, [numbers.Length]);
        backend.Write<int>(tensor, numbers);
        return tensor;
    }

    /// <summary>An output full of NaN, its rows some numbers apart.</summary>
    public DeviceTensor Output(int gap, params int[] shape)
    {
        DeviceTensor tensor = Strided(ElementType.Float32, gap, shape);
        backend.Write<float>(tensor, Enumerable.Repeat(float.NaN, (int)tensor.Count).ToArray());
        return tensor;
    }

    /// <summary>An output of integers full of a number that no op gives.</summary>
    public DeviceTensor IntegerOutput(params int[] shape)
    {
        DeviceTensor tensor = Strided(ElementType.Int32, 0, shape);
        backend.Write<int>(tensor, Enumerable.Repeat(-99, (int)tensor.Count).ToArray());
        return tensor;
    }

    /// <summary>Reads an output, and checks that nothing between any rows has changed.</summary>
    public float[] Read(DeviceTensor output)
    {
        foreach ((DeviceTensor whole, int used) in _gaps)
        {
            float[] all = backend.Download<float>(whole);
            for (int i = 0; i < all.Length; i++)
                if (i % whole.RowLength >= used) Assert.Equal(Untouched, all[i]);
        }

        return backend.Download<float>(output);
    }

    public int[] ReadIntegers(DeviceTensor output) => backend.Download<int>(output);

    public T Own<T>(T disposable) where T : IDisposable
    {
        _owned.Add(disposable);
        return disposable;
    }

    public void Dispose()
    {
        foreach (IDisposable owned in _owned) owned.Dispose();
        if (owner) backend.Dispose();
    }

    private DeviceTensor Strided(ElementType type, int gap, int[] shape)
    {
        if (gap == 0) return Allocate(type, shape);
        int row = shape[1..].Aggregate(1, (a, b) => a * b);
        DeviceTensor whole = Allocate(type, [shape[0], row + gap]);
        if (type == ElementType.Float32)
        {
            backend.Write<float>(whole, Enumerable.Repeat(Untouched, (int)whole.Count).ToArray());
            _gaps.Add((whole, row));
        }

        return whole.Slice(1, 0, row).View(shape);
    }

    private DeviceTensor Allocate(ElementType type, int[] shape)
    {
        if (backend is not HostBackend) return Own(backend.Allocate(type, shape));
        var memory = Own(new GuardedMemory(Math.Max(1, shape.Aggregate(1L, (a, b) => a * b)) * type.Size()));
        return Own(backend.Wrap(memory.Pointer, type, shape));
    }
}
