using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Accepted path of each verified entry: from node 0, which counts as accepted, on to the child that carries the target's own token, as long as there is one.</summary>
    /// <remarks>With argmax as the target's choice this is greedy acceptance, with sampled tokens it is lossless sampling (docs/decoding.md). Entries that move get -1 throughout. Among children that carry the same token the one with the longest accepted path is taken, then the first.</remarks>
    /// <param name="step">The step; verified entries have logits for every row.</param>
    /// <param name="tokens">The step's tokens, int32 <c>[step.Tokens]</c>.</param>
    /// <param name="chosen">The target's own next token after each logit row, int32 <c>[step.LogitCount]</c>.</param>
    /// <param name="accepted">int32, receives <c>[step.Entries, step.MaxDepth]</c>, -1 padded.</param>
    /// <param name="next">int32, receives <c>[step.Entries]</c>: the target's token after the accepted path (after the last row of an entry that moves; -1 where it has no logits).</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Accept(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next)
    {
        using Call call = Enter(nameof(Accept));
        ArgumentNullException.ThrowIfNull(step);
        RequireVerifiedLogits(step);
        tokens.Require(this, Types.Int32, [step.Tokens]);
        chosen.Require(this, Types.Int32, [step.LogitCount]);
        accepted.Require(this, Types.Int32, [step.Entries, step.MaxDepth]);
        next.Require(this, Types.Int32, [step.Entries]);
        AcceptCore(step, tokens, chosen, accepted, next);
    }

    /// <summary>The kernel of <see cref="Accept"/>; the arguments have been checked.</summary>
    /// <param name="step">The step; verified entries have logits for every row.</param>
    /// <param name="tokens">The step's tokens, int32 <c>[step.Tokens]</c>.</param>
    /// <param name="chosen">The target's own next token after each logit row, int32 <c>[step.LogitCount]</c>.</param>
    /// <param name="accepted">int32, receives <c>[step.Entries, step.MaxDepth]</c>, -1 padded.</param>
    /// <param name="next">int32, receives <c>[step.Entries]</c>: the target's token after the accepted path (after the last row of an entry that moves; -1 where it has no logits).</param>
    protected virtual void AcceptCore(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next) => throw Unsupported(nameof(Accept));

    private static void RequireVerifiedLogits(Step step)
    {
        for (int i = 0; i < step.Entries; i++)
        {
            if (!step[i].Moves && step[i].LogitCount != step[i].Count)
                throw new ArgumentException($"step: entry {i} is verified, expected logits for its {step[i].Count} rows, got {step[i].LogitCount}", nameof(step));
        }
    }
}
