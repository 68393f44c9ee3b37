using Treeline.Kernels;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Kernels;

/// <summary>Host numbers of one argument: shape, storage, and how far apart its rows lie.</summary>
internal sealed record Argument(int[] Shape, float[] Numbers, ElementType Type = ElementType.Float32, int Gap = 0)
{
    public static Argument Random(int seed, ElementType type, int gap, params int[] shape) =>
        new(shape, new Random(seed).Floats(shape.Aggregate(1, (a, b) => a * b), 1), type, gap);

    /// <summary>The numbers as they are stored.</summary>
    public float[] Rounded => Array.ConvertAll(Numbers, x => Type switch
    {
        ElementType.BFloat16 => (BFloat16)x,
        ElementType.Float16 => (float)(Half)x,
        _ => x,
    });

    /// <summary>Rows first to end.</summary>
    public Argument Rows(int first, int end)
    {
        int row = Numbers.Length / Shape[0];
        return this with { Shape = [end - first, .. Shape[1..]], Numbers = Numbers[(first * row)..(end * row)] };
    }
}

/// <summary>Runs single ops on one backend from host numbers.</summary>
internal sealed class OpRig(KernelBackend backend, bool owner = true) : IDisposable
{
    // What lies between strided rows, before and after a call.
    private const float Guard = 12345;
    private readonly List<IDisposable> _owned = [];
    private readonly Dictionary<DeviceTensor, DeviceTensor> _fused = [];

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

    public DeviceTensor Upload(params int[] numbers) => Own(backend.Upload<int>(numbers, numbers.Length));

    /// <summary>An output full of NaN, its rows some numbers apart.</summary>
    public DeviceTensor Output(int gap, params int[] shape)
    {
        DeviceTensor tensor = Strided(ElementType.Float32, gap, shape);
        backend.Write<float>(tensor, Enumerable.Repeat(float.NaN, (int)tensor.Count).ToArray());
        return tensor;
    }

    /// <summary>Reads an output and checks that the gaps between its rows are as they were.</summary>
    public float[] Read(DeviceTensor output)
    {
        if (_fused.TryGetValue(output, out DeviceTensor? whole))
        {
            float[] all = backend.Download<float>(whole);
            int row = whole.RowLength, used = output.RowLength;
            for (int i = 0; i < all.Length; i++)
                if (i % row >= used) Xunit.Assert.Equal(Guard, all[i]);
        }

        return backend.Download<float>(output);
    }

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
        if (gap == 0) return Own(backend.Allocate(type, shape));
        int row = shape[1..].Aggregate(1, (a, b) => a * b);
        DeviceTensor whole = Own(backend.Allocate(type, shape[0], row + gap));
        if (type == ElementType.Float32) backend.Write<float>(whole, Enumerable.Repeat(Guard, (int)whole.Count).ToArray());
        DeviceTensor part = whole.Slice(1, 0, row).View(shape);
        _fused[part] = whole;
        return part;
    }
}
