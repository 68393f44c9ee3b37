namespace Treeline.Kernels;

/// <summary>Which channels of a head turn together.</summary>
public enum RotaryPairs
{
    /// <summary>Channel j with channel j + rotaryDim/2 (LLaMA as the Hugging Face hub stores it).</summary>
    Halves,

    /// <summary>Channel 2j with channel 2j + 1 (FLASH, GPT-J).</summary>
    Interleaved,
}

public abstract partial class KernelBackend
{
    /// <summary>Rotary position embedding, in place: each pair of channels turns by its angle. Su et al. 2021.</summary>
    /// <remarks>Channels past <c>2 · cosines' columns</c> stay as they are.</remarks>
    /// <param name="vectors"><c>[n, heads, headDim]</c>, queries or keys; turned in place.</param>
    /// <param name="cosines"><c>[n, pairs]</c>, from <see cref="RotaryAngles"/>.</param>
    /// <param name="sines"><c>[n, pairs]</c>.</param>
    /// <param name="pairs">Which channels make a pair.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Rotary(DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs)
    {
        using Call call = Enter(nameof(Rotary));
        vectors.Require(this, FloatOutputs, [-1, -1, -1]);
        cosines.Require(this, FloatOutputs, [vectors.Rows, -1]);
        sines.Require(this, FloatOutputs, [vectors.Rows, cosines.RowLength]);
        if (2 * cosines.RowLength > vectors.Shape[2]) throw new ArgumentException($"cosines: {cosines.RowLength} pairs do not fit into {vectors.Shape[2]} channels", nameof(cosines));
        if (!Enum.IsDefined(pairs)) throw new ArgumentOutOfRangeException(nameof(pairs), pairs, "unknown pairs");
        RotaryCore(vectors, cosines, sines, pairs);
    }

    /// <summary>The kernel of <see cref="Rotary"/>; the arguments have been checked.</summary>
    /// <param name="vectors"><c>[n, heads, headDim]</c>, queries or keys; turned in place.</param>
    /// <param name="cosines"><c>[n, pairs]</c>, from <see cref="RotaryAngles"/>.</param>
    /// <param name="sines"><c>[n, pairs]</c>.</param>
    /// <param name="pairs">Which channels make a pair.</param>
    protected virtual void RotaryCore(DeviceTensor vectors, DeviceTensor cosines, DeviceTensor sines, RotaryPairs pairs) => throw Unsupported(nameof(Rotary));
}
