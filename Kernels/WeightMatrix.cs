namespace Treeline.Kernels;

/// <summary>How a weight matrix is stored; the form decides the order of its sums, never the number of rows does.</summary>
public enum WeightForm
{
    /// <summary>Packed for the backend's product, float32.</summary>
    Float32,

    /// <summary>Packed for the backend's product, bfloat16.</summary>
    BFloat16,

    /// <summary>Packed for the backend's product, float16.</summary>
    Float16,

    /// <summary>The tensor as it lies (row-major, its own type), used in place without a copy: for memory-mapped checkpoints.</summary>
    InPlace,

    /// <summary>Packed in 8 bits, a float32 scale for every 32 inputs of an output (36 bytes): see <see cref="WeightBlocks"/>. Off by at most 1/254 of the largest weight of its 32.</summary>
    Int8,

    /// <summary>Packed in 4 bits, a float32 scale for every 32 inputs of an output (20 bytes): see <see cref="WeightBlocks"/>. Off by at most 1/16, rarely 1/8, of the largest weight of its 32.</summary>
    Int4,
}

/// <summary>A weight matrix in the form that <see cref="KernelBackend.Linear"/> takes; opaque, made by <see cref="KernelBackend.Pack"/>.</summary>
public abstract class WeightMatrix : IDisposable
{
    /// <summary>Creates the backend-independent side.</summary>
    /// <param name="backend">Whose memory holds it.</param>
    /// <param name="form">How it is stored.</param>
    /// <param name="outputs">Rows of the weight.</param>
    /// <param name="inputs">Columns of the weight.</param>
    protected WeightMatrix(KernelBackend backend, WeightForm form, int outputs, int inputs)
    {
        Backend = backend;
        Form = form;
        Outputs = outputs;
        Inputs = inputs;
    }

    /// <summary>Whose memory holds it.</summary>
    public KernelBackend Backend { get; }

    /// <summary>How it is stored.</summary>
    public WeightForm Form { get; }

    /// <summary>Output channels.</summary>
    public int Outputs { get; }

    /// <summary>Input channels.</summary>
    public int Inputs { get; }

    /// <summary>Bytes that a product streams.</summary>
    public abstract long Bytes { get; }

    /// <summary>True once disposed.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>Gives the packed memory back; harmless when repeated.</summary>
    public void Dispose()
    {
        using KernelBackend.Call call = Backend.WaitForTurn();
        if (!IsDisposed)
        {
            IsDisposed = true;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the packed memory back.</summary>
    /// <param name="disposing">Always true; there are no finalizers here.</param>
    protected abstract void Dispose(bool disposing);
}

public abstract partial class KernelBackend
{
    /// <summary>Stores a weight in the form that <see cref="Linear"/> takes.</summary>
    /// <param name="weight"><c>[outputs, inputs]</c>; its memory may be given back afterwards, except with <see cref="WeightForm.InPlace"/>.</param>
    /// <param name="form">How to store it; a narrower form rounds to the nearest number that it has.</param>
    /// <param name="transposed">True: the weight is stored <c>[inputs, outputs]</c> (GPT-2's <c>Conv1D</c>); not with <see cref="WeightForm.InPlace"/>.</param>
    /// <exception cref="ArgumentException">The tensor does not fit, in place is asked of a transposed one, or 8 or 4 bits of weights that are not finite.</exception>
    public WeightMatrix Pack(DeviceTensor weight, WeightForm form, bool transposed = false)
    {
        using Call call = Enter(nameof(Pack));
        weight.Require(this, FloatInputs, [-1, -1]);
        if (!Enum.IsDefined(form)) throw new ArgumentOutOfRangeException(nameof(form), form, "unknown form");
        if (transposed && form == WeightForm.InPlace) throw new ArgumentException("transposed: a transposed weight cannot be used in place", nameof(transposed));
        if (weight.Count == 0) throw new ArgumentException($"weight: expected at least one row and column, got {weight.Describe()}", nameof(weight));
        return PackCore(weight, form, transposed);
    }

    /// <summary>Packs; the arguments have been checked.</summary>
    /// <param name="weight">The weight.</param>
    /// <param name="form">The form.</param>
    /// <param name="transposed">Stored <c>[inputs, outputs]</c>.</param>
    protected virtual WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed) => throw Unsupported(nameof(Pack));
}
