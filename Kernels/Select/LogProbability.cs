using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Log-probability of one token a row: <c>output[i] = logits[i, tokens[i]] - log Σ exp(logits[i])</c>.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="tokens">int32 <c>[n]</c>.</param>
    /// <param name="output">Receives <c>[n]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void LogProbability(DeviceTensor logits, DeviceTensor tokens, DeviceTensor output)
    {
        using Call call = Enter(nameof(LogProbability));
        logits.Require(this, FloatInputs, [-1, -1]);
        tokens.Require(this, Types.Int32, [logits.Rows]);
        output.Require(this, FloatOutputs, [logits.Rows]);
        LogProbabilityCore(logits, tokens, output);
    }

    /// <summary>The kernel of <see cref="LogProbability"/>; the arguments have been checked.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="tokens">int32 <c>[n]</c>.</param>
    /// <param name="output">Receives <c>[n]</c>.</param>
    protected virtual void LogProbabilityCore(DeviceTensor logits, DeviceTensor tokens, DeviceTensor output) => throw Unsupported(nameof(LogProbability));
}
