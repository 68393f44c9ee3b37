using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Cosines and sines of the rotary embedding at some positions, shared by all layers of a step.</summary>
    /// <remarks><c>angle[i, j] = positions[i] · frequencies_j(positions[i])</c>; frequencies and angle are float32, as in the checkpoints' training code.</remarks>
    /// <param name="spec">Base, dimensions, scaling.</param>
    /// <param name="positions">int32 <c>[n]</c>.</param>
    /// <param name="cosines">Receives <c>[n, rotaryDim / 2]</c>.</param>
    /// <param name="sines">Receives <c>[n, rotaryDim / 2]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void RotaryAngles(RotarySpec spec, DeviceTensor positions, DeviceTensor cosines, DeviceTensor sines)
    {
        using Call call = Enter(nameof(RotaryAngles));
        ArgumentNullException.ThrowIfNull(spec);
        spec.Validate();
        positions.Require(this, Types.Int32, [-1]);
        cosines.Require(this, FloatOutputs, [positions.Rows, spec.RotaryDim / 2]);
        sines.Require(this, FloatOutputs, [positions.Rows, spec.RotaryDim / 2]);
        RotaryAnglesCore(spec, positions, cosines, sines);
    }

    /// <summary>The kernel of <see cref="RotaryAngles"/>; the arguments have been checked.</summary>
    /// <param name="spec">Base, dimensions, scaling.</param>
    /// <param name="positions">int32 <c>[n]</c>.</param>
    /// <param name="cosines">Receives <c>[n, rotaryDim / 2]</c>.</param>
    /// <param name="sines">Receives <c>[n, rotaryDim / 2]</c>.</param>
    protected virtual void RotaryAnglesCore(RotarySpec spec, DeviceTensor positions, DeviceTensor cosines, DeviceTensor sines) => throw Unsupported(nameof(RotaryAngles));
}
