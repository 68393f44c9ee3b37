namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Gated linear unit with SiLU: <c>output = gate · sigmoid(gate) · up</c>. Shazeer 2020 (SwiGLU).</summary>
    /// <remarks>Output may be either input.</remarks>
    /// <param name="gate"><c>[n, channels]</c>.</param>
    /// <param name="up"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void SiluGate(DeviceTensor gate, DeviceTensor up, DeviceTensor output)
    {
        using Call call = Enter(nameof(SiluGate));
        gate.Require(this, FloatInputs, [-1, -1]);
        up.Require(this, FloatInputs, [gate.Rows, gate.RowLength]);
        output.Require(this, FloatOutputs, [gate.Rows, gate.RowLength]);
        SiluGateCore(gate, up, output);
    }

    /// <summary>The kernel of <see cref="SiluGate"/>; the arguments have been checked.</summary>
    /// <param name="gate"><c>[n, channels]</c>.</param>
    /// <param name="up"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void SiluGateCore(DeviceTensor gate, DeviceTensor up, DeviceTensor output) => throw Unsupported(nameof(SiluGate));
}
