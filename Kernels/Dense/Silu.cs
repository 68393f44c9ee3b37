namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Sigmoid linear unit, elementwise: <c>output = input · sigmoid(input)</c>.</summary>
    /// <remarks>Output may be the input.</remarks>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Silu(DeviceTensor input, DeviceTensor output)
    {
        using Call call = Enter(nameof(Silu));
        input.Require(this, FloatInputs, [-1, -1]);
        output.Require(this, FloatOutputs, [input.Rows, input.RowLength]);
        SiluCore(input, output);
    }

    /// <summary>The kernel of <see cref="Silu"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void SiluCore(DeviceTensor input, DeviceTensor output) => throw Unsupported(nameof(Silu));
}
