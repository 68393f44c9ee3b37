namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Root-mean-square norm of each row: <c>output = input / sqrt(mean(input²) + epsilon) · gain</c>.</summary>
    /// <remarks>Zhang and Sennrich 2019. Output may be the input.</remarks>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="gain"><c>[channels]</c>.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void RmsNorm(DeviceTensor input, DeviceTensor gain, float epsilon, DeviceTensor output)
    {
        using Call call = Enter(nameof(RmsNorm));
        input.Require(this, FloatInputs, [-1, -1]);
        gain.Require(this, FloatInputs, [input.RowLength]);
        output.Require(this, FloatOutputs, [input.Rows, input.RowLength]);
        RmsNormCore(input, gain, epsilon, output);
    }

    /// <summary>The kernel of <see cref="RmsNorm"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="gain"><c>[channels]</c>.</param>
    /// <param name="epsilon">Added to the mean square.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void RmsNormCore(DeviceTensor input, DeviceTensor gain, float epsilon, DeviceTensor output) => throw Unsupported(nameof(RmsNorm));
}
