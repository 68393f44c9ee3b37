namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Layer norm of each row: <c>output = (input - mean) / sqrt(variance + epsilon) · gain + bias</c>.</summary>
    /// <remarks>Ba et al. 2016; the variance is the mean of squared deviations. Output may be the input.</remarks>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="gain"><c>[channels]</c>.</param>
    /// <param name="bias"><c>[channels]</c>.</param>
    /// <param name="epsilon">Added to the variance.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void LayerNorm(DeviceTensor input, DeviceTensor gain, DeviceTensor bias, float epsilon, DeviceTensor output)
    {
        using Call call = Enter(nameof(LayerNorm));
        input.Require(this, FloatInputs, [-1, -1]);
        gain.Require(this, FloatInputs, [input.RowLength]);
        bias.Require(this, FloatInputs, [input.RowLength]);
        output.Require(this, FloatOutputs, [input.Rows, input.RowLength]);
        LayerNormCore(input, gain, bias, epsilon, output);
    }

    /// <summary>The kernel of <see cref="LayerNorm"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="gain"><c>[channels]</c>.</param>
    /// <param name="bias"><c>[channels]</c>.</param>
    /// <param name="epsilon">Added to the variance.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void LayerNormCore(DeviceTensor input, DeviceTensor gain, DeviceTensor bias, float epsilon, DeviceTensor output) => throw Unsupported(nameof(LayerNorm));
}
