namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Matrix product with a weight: <c>output = input · weightᵀ + bias</c>.</summary>
    /// <remarks>Lossless to the bit where the backend says so: a row's result depends on that row alone, not on the number of rows.</remarks>
    /// <param name="input"><c>[n, inputs]</c>.</param>
    /// <param name="weight"><c>[outputs, inputs]</c>, packed.</param>
    /// <param name="bias"><c>[outputs]</c>, null for none.</param>
    /// <param name="output">Receives <c>[n, outputs]</c>; shares no memory with the input.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Linear(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        using Call call = Enter(nameof(Linear));
        ArgumentNullException.ThrowIfNull(weight);
        ObjectDisposedException.ThrowIf(weight.IsDisposed, weight);
        if (!ReferenceEquals(weight.Backend, this)) throw new ArgumentException($"weight: packed by {weight.Backend.Name}, not by this {Name}", nameof(weight));
        input.Require(this, FloatInputs, [-1, weight.Inputs]);
        bias?.Require(this, FloatInputs, [weight.Outputs], nameof(bias));
        output.Require(this, FloatOutputs, [input.Rows, weight.Outputs]);
        output.RequireApart(input);
        LinearCore(input, weight, bias, output);
    }

    /// <summary>The kernel of <see cref="Linear"/>; the arguments have been checked.</summary>
    /// <param name="input"><c>[n, inputs]</c>.</param>
    /// <param name="weight"><c>[outputs, inputs]</c>, packed.</param>
    /// <param name="bias"><c>[outputs]</c>, null for none.</param>
    /// <param name="output">Receives <c>[n, outputs]</c>; shares no memory with the input.</param>
    protected virtual void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output) => throw Unsupported(nameof(Linear));
}
