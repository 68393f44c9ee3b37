namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Softmax of each row: <c>output = exp(input - max) / Σ exp(input - max)</c>.</summary>
    /// <remarks>Output may be the input.</remarks>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Softmax(DeviceTensor input, DeviceTensor output)
    {
        using Call call = Enter(nameof(Softmax));
        input.Require(this, FloatInputs, [-1, -1]);
        output.Require(this, FloatOutputs, [input.Rows, input.RowLength]);
        SoftmaxCore(input, output);
    }

    /// <summary>The kernel of <see cref="Softmax"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void SoftmaxCore(DeviceTensor input, DeviceTensor output) => throw Unsupported(nameof(Softmax));
}
