using Treeline.Kernels;

namespace Treeline;

/// <summary>A checkpoint's tensors as a model asks for them, by name and shape, in a backend's memory. Owns what it makes, and the checkpoint.</summary>
internal sealed class ModelWeights(KernelBackend backend, Checkpoint checkpoint, WeightForm? form) : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly HashSet<string> _used = [];

    public KernelBackend Backend => backend;

    /// <summary>Names of the tensors that nobody has asked for.</summary>
    public IEnumerable<string> Unused => checkpoint.Tensors.Select(tensor => tensor.Name).Where(name => !_used.Contains(name));

    public bool Has(string name) => checkpoint.TryGet(name, out _);

    /// <summary>A linear layer: its weight <c>[outputs, inputs]</c>, or <c>[inputs, outputs]</c> where it is stored transposed, and its bias.</summary>
    public Projection Projection(string name, int outputs, int inputs, bool bias, bool transposed = false) =>
        new(Matrix($"{name}.weight", outputs, inputs, transposed), bias ? Vector($"{name}.bias", outputs) : null);

    /// <summary>A weight matrix, packed.</summary>
    public WeightMatrix Matrix(string name, int outputs, int inputs, bool transposed = false)
    {
        CheckpointTensor stored = Find(name, transposed ? [inputs, outputs] : [outputs, inputs]);
        WeightForm wanted = form ?? WidthOf(stored);
        if (transposed && wanted == WeightForm.InPlace) wanted = WidthOf(stored);
        if (wanted == WeightForm.InPlace) return Own(backend.Pack(Own(Map(stored)), wanted));
        using DeviceTensor source = Map(stored);
        try
        {
            return Own(backend.Pack(source, wanted, transposed));
        }
        catch (ArgumentException e) when (wanted is WeightForm.Int8 or WeightForm.Int4)
        {
            throw new CheckpointException(stored.File, name, e.Message, e);
        }
    }

    /// <summary>A norm: its gain and, where it has one, its bias.</summary>
    public NormLayer Norm(string name, int channels, float epsilon, bool bias) =>
        new(Vector($"{name}.weight", channels), bias ? Vector($"{name}.bias", channels) : null, epsilon);

    /// <summary>A short vector, as float32 whatever it is stored as: kernels then read it where it lies.</summary>
    public DeviceTensor Vector(string name, int length) => Own(backend.Upload<float>(Find(name, length).ToFloat32(), length));

    /// <summary>A table of embeddings <c>[rows, columns]</c>, as it is stored.</summary>
    public DeviceTensor Table(string name, int rows, int columns)
    {
        CheckpointTensor stored = Find(name, rows, columns);
        return Own(form == WeightForm.InPlace ? Map(stored) : Copy(stored));
    }

    /// <summary>The filters of a masked depthwise convolution, stored <c>[heads, 1, kernel, 1]</c> with the token itself in the middle and the past before it, as <c>[heads, taps]</c> with the token itself first.</summary>
    public DeviceTensor Taps(string name, int heads, int kernel)
    {
        float[] stored = Find(name, heads, 1, kernel, 1).ToFloat32();
        int middle = kernel / 2, taps = middle + 1;
        var reversed = new float[heads * taps];
        for (int head = 0; head < heads; head++)
            for (int tap = 0; tap < taps; tap++) reversed[head * taps + tap] = stored[head * kernel + middle - tap];
        return Own(backend.Upload<float>(reversed, heads, taps));
    }

    /// <summary>A layer's attention with its weights.</summary>
    public AttentionLayer Bind(AttentionSpec spec, IReadOnlyDictionary<string, DeviceTensor> weights) => Own(backend.Bind(spec, weights));

    /// <summary>Nothing more will be asked for: the files are closed, unless weights are used where they lie in them.</summary>
    public void Close()
    {
        if (form != WeightForm.InPlace) checkpoint.Dispose();
    }

    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--) _owned[i].Dispose();
        checkpoint.Dispose();
    }

    private CheckpointTensor Find(string name, params ReadOnlySpan<int> shape)
    {
        _used.Add(name);
        CheckpointTensor stored = checkpoint[name].Require(shape);
        return stored.ElementType.IsFloat() ? stored : throw new CheckpointException(stored.File, name, $"expected floating-point numbers, got {stored.StoredType}");
    }

    private static WeightForm WidthOf(CheckpointTensor stored) => stored.ElementType switch
    {
        ElementType.BFloat16 => WeightForm.BFloat16,
        ElementType.Float16 => WeightForm.Float16,
        _ => WeightForm.Float32,
    };

    // The mapped file itself where the backend's memory is the host's and its kernels can read it there.
    private DeviceTensor Map(CheckpointTensor stored) =>
        backend is HostBackend && stored.IsAligned && stored.ElementType != ElementType.Float64
            ? backend.Wrap(stored.Pointer, stored.ElementType, stored.Shape)
            : Copy(stored);

    private DeviceTensor Copy(CheckpointTensor stored)
    {
        if (stored.ElementType == ElementType.Float64) return backend.Upload<float>(stored.ToFloat32(), stored.Shape);
        DeviceTensor copy = backend.Allocate(stored.ElementType, stored.Shape);
        try
        {
            switch (stored.ElementType)
            {
                case ElementType.BFloat16: CopyRows<BFloat16>(stored.Pointer, copy); break;
                case ElementType.Float16: CopyRows<Half>(stored.Pointer, copy); break;
                default: CopyRows<float>(stored.Pointer, copy); break;
            }

            return copy;
        }
        catch
        {
            copy.Dispose();
            throw;
        }
    }

    // In pieces: a tensor may hold more numbers than a span can.
    private unsafe void CopyRows<T>(nint from, DeviceTensor to) where T : unmanaged
    {
        const int Most = 1 << 26;
        int perPiece = Math.Max(1, Most / to.RowLength);
        for (int row = 0; row < to.Rows; row += perPiece)
        {
            DeviceTensor piece = to.Slice(0, row, Math.Min(perPiece, to.Rows - row));
            backend.Write(piece, new ReadOnlySpan<T>((T*)from + (long)row * to.RowLength, (int)piece.Count));
        }
    }

    private T Own<T>(T made) where T : IDisposable
    {
        _owned.Add(made);
        return made;
    }
}

/// <summary>A linear layer: <c>x · weightᵀ + bias</c>.</summary>
internal readonly record struct Projection(WeightMatrix Weight, DeviceTensor? Bias)
{
    public void Apply(DeviceTensor input, DeviceTensor output) => output.Backend.Linear(input, Weight, Bias, output);
}

/// <summary>A norm over the channels: a layer norm where it has a bias, else a root-mean-square norm.</summary>
internal readonly record struct NormLayer(DeviceTensor Gain, DeviceTensor? Bias, float Epsilon)
{
    public void Apply(DeviceTensor input, DeviceTensor output)
    {
        if (Bias is null) output.Backend.RmsNorm(input, Gain, Epsilon, output);
        else output.Backend.LayerNorm(input, Gain, Bias, Epsilon, output);
    }
}
