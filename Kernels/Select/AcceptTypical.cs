using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Accepted path of each verified entry by Medusa's typical acceptance (Cai et al. 2024).</summary>
    /// <remarks>With p = softmax(logits / temperature) after the parent and H = -Σ p·log(p + 1e-5): a child is accepted where p(token) &gt; min(threshold, alpha · exp(-H)). Node 0 counts as accepted; the longest path wins, then the likeliest (Σ log p), then the one that ends at the first of the leaves in descending node order. Temperature 0 accepts as greedy does.</remarks>
    /// <param name="step">The step; verified entries have logits for every row.</param>
    /// <param name="tokens">The step's tokens, int32 <c>[step.Tokens]</c>.</param>
    /// <param name="logits"><c>[step.LogitCount, vocabulary]</c>.</param>
    /// <param name="temperature">0 or more.</param>
    /// <param name="threshold">ε, the most that is asked.</param>
    /// <param name="alpha">δ, the entropy's factor.</param>
    /// <param name="accepted">int32, receives <c>[step.Entries, step.MaxDepth]</c>, -1 padded; entries that move get -1 throughout.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void AcceptTypical(Step step, DeviceTensor tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted)
    {
        using Call call = Enter(nameof(AcceptTypical));
        ArgumentNullException.ThrowIfNull(step);
        RequireVerifiedLogits(step);
        if (!(temperature >= 0)) throw new ArgumentException($"temperature: expected 0 or more, got {temperature}", nameof(temperature));
        if (float.IsNaN(threshold)) throw new ArgumentException("threshold: expected a number, got NaN", nameof(threshold));
        if (float.IsNaN(alpha)) throw new ArgumentException("alpha: expected a number, got NaN", nameof(alpha));
        tokens.Require(this, Types.Int32, [step.Tokens]);
        logits.Require(this, FloatInputs, [step.LogitCount, -1]);
        accepted.Require(this, Types.Int32, [step.Entries, step.MaxDepth]);
        AcceptTypicalCore(step, tokens, logits, temperature, threshold, alpha, accepted);
    }

    /// <summary>The kernel of <see cref="AcceptTypical"/>; the arguments have been checked.</summary>
    /// <param name="step">The step; verified entries have logits for every row.</param>
    /// <param name="tokens">The step's tokens, int32 <c>[step.Tokens]</c>.</param>
    /// <param name="logits"><c>[step.LogitCount, vocabulary]</c>.</param>
    /// <param name="temperature">0 or more.</param>
    /// <param name="threshold">ε, the most that is asked.</param>
    /// <param name="alpha">δ, the entropy's factor.</param>
    /// <param name="accepted">int32, receives <c>[step.Entries, step.MaxDepth]</c>, -1 padded; entries that move get -1 throughout.</param>
    protected virtual void AcceptTypicalCore(Step step, DeviceTensor tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted) => throw Unsupported(nameof(AcceptTypical));
}
