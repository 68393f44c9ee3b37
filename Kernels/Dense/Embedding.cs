using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Takes rows of a table: token embedding, position embedding, or the rows of hidden states that want logits.</summary>
    /// <remarks><c>output[i] = table[ids[i]]</c>; ids outside the table are the caller's to avoid on devices, and refused where the host sees them.</remarks>
    /// <param name="table"><c>[rows, channels]</c>.</param>
    /// <param name="ids">int32 <c>[n]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Embedding(DeviceTensor table, DeviceTensor ids, DeviceTensor output)
    {
        using Call call = Enter(nameof(Embedding));
        ids.Require(this, Types.Int32, [-1]);
        table.Require(this, FloatInputs, [-1, -1]);
        output.Require(this, FloatOutputs, [ids.Rows, table.RowLength]);
        EmbeddingCore(table, ids, output);
    }

    /// <summary>The kernel of <see cref="Embedding"/>; the arguments have been checked.</summary>
    /// <param name="table"><c>[rows, channels]</c>.</param>
    /// <param name="ids">int32 <c>[n]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void EmbeddingCore(DeviceTensor table, DeviceTensor ids, DeviceTensor output) => throw Unsupported(nameof(Embedding));
}
