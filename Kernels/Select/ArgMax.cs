using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Index of each row's largest number; among equals the lowest index.</summary>
    /// <remarks>A row with NaN gives the first NaN's index, so that it is seen and not skipped.</remarks>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="tokens">int32, receives <c>[n]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void ArgMax(DeviceTensor logits, DeviceTensor tokens)
    {
        using Call call = Enter(nameof(ArgMax));
        logits.Require(this, FloatInputs, [-1, -1]);
        if (logits.RowLength == 0) throw new ArgumentException("logits: expected at least one column", nameof(logits));
        tokens.Require(this, Types.Int32, [logits.Rows]);
        ArgMaxCore(logits, tokens);
    }

    /// <summary>The kernel of <see cref="ArgMax"/>; the arguments have been checked.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="tokens">int32, receives <c>[n]</c>.</param>
    protected virtual void ArgMaxCore(DeviceTensor logits, DeviceTensor tokens) => throw Unsupported(nameof(ArgMax));
}
