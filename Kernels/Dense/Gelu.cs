namespace Treeline.Kernels;

/// <summary>The two forms of GELU in use.</summary>
public enum GeluForm
{
    /// <summary><c>x/2 · (1 + erf(x/√2))</c>.</summary>
    Exact,

    /// <summary><c>x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))</c>, GPT-2's <c>gelu_new</c>.</summary>
    Tanh,
}

public abstract partial class KernelBackend
{
    /// <summary>Gaussian error linear unit, elementwise. Hendrycks and Gimpel 2016.</summary>
    /// <remarks>Output may be the input.</remarks>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="form">Exact or the tanh approximation.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Gelu(DeviceTensor input, GeluForm form, DeviceTensor output)
    {
        using Call call = Enter(nameof(Gelu));
        input.Require(this, FloatInputs, [-1, -1]);
        output.Require(this, FloatOutputs, [input.Rows, input.RowLength]);
        if (!Enum.IsDefined(form)) throw new ArgumentOutOfRangeException(nameof(form), form, "unknown form");
        GeluCore(input, form, output);
    }

    /// <summary>The kernel of <see cref="Gelu"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, channels]</c>.</param>
    /// <param name="form">Exact or the tanh approximation.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void GeluCore(DeviceTensor input, GeluForm form, DeviceTensor output) => throw Unsupported(nameof(Gelu));
}
