using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Each row's k largest numbers, in descending order; among equals the lowest index first.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="values">Receives <c>[n, k]</c>; k is at most the vocabulary.</param>
    /// <param name="indices">int32, receives <c>[n, k]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void TopK(DeviceTensor logits, DeviceTensor values, DeviceTensor indices)
    {
        using Call call = Enter(nameof(TopK));
        logits.Require(this, FloatInputs, [-1, -1]);
        values.Require(this, FloatOutputs, [logits.Rows, -1]);
        indices.Require(this, Types.Int32, [logits.Rows, values.RowLength]);
        if (values.RowLength > logits.RowLength) throw new ArgumentException($"values: k = {values.RowLength} of {logits.RowLength} columns", nameof(values));
        TopKCore(logits, values, indices);
    }

    /// <summary>The kernel of <see cref="TopK"/>; the arguments have been checked.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="values">Receives <c>[n, k]</c>; k is at most the vocabulary.</param>
    /// <param name="indices">int32, receives <c>[n, k]</c>.</param>
    protected virtual void TopKCore(DeviceTensor logits, DeviceTensor values, DeviceTensor indices) => throw Unsupported(nameof(TopK));
}
