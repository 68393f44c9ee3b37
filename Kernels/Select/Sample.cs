using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Draws a token from each row's processed distribution; temperature 0 takes the largest.</summary>
    /// <remarks>Order: temperature, top-k, top-p (the smallest set of the most probable tokens that reaches p), min-p (relative to the most probable). The draw walks the tokens that are left in the order of their ids and stops where the cumulated probability passes a uniform number made of seed and position alone (<see cref="SamplingRow.Uniform"/>): same row, same bits, same token, whatever else the call holds.</remarks>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="rows">How to draw from each row, <c>[n]</c>.</param>
    /// <param name="tokens">int32, receives <c>[n]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type, device or option does not fit, or a row has NaN, +∞ or no finite number (the message says which row).</exception>
    public void Sample(DeviceTensor logits, ReadOnlySpan<SamplingRow> rows, DeviceTensor tokens)
    {
        using Call call = Enter(nameof(Sample));
        logits.Require(this, FloatInputs, [-1, -1]);
        if (logits.RowLength == 0) throw new ArgumentException("logits: expected at least one column", nameof(logits));
        tokens.Require(this, Types.Int32, [logits.Rows]);
        if (rows.Length != logits.Rows) throw new ArgumentException($"rows: expected [{logits.Rows}], got [{rows.Length}]", nameof(rows));
        foreach (SamplingRow row in rows) row.Validate();
        SampleCore(logits, rows, tokens);
    }

    /// <summary>The kernel of <see cref="Sample"/>; the arguments have been checked.</summary>
    /// <param name="logits"><c>[n, vocabulary]</c>.</param>
    /// <param name="rows">How to draw from each row, <c>[n]</c>.</param>
    /// <param name="tokens">int32, receives <c>[n]</c>.</param>
    protected virtual void SampleCore(DeviceTensor logits, ReadOnlySpan<SamplingRow> rows, DeviceTensor tokens) => throw Unsupported(nameof(Sample));
}
