using Treeline.Kernels;

namespace Treeline;

/// <summary>Heads that guess the tokens after the next one from the last hidden state. Cai et al. 2024 (Medusa).</summary>
/// <remarks>Head i is <c>x + SiLU(W x + b)</c>, once or more, then a linear layer to the vocabulary; it guesses the token i + 2 places after the one whose hidden state it reads.</remarks>
public abstract class MedusaHeads : IDisposable
{
    /// <summary>Number of heads.</summary>
    public abstract int Count { get; }

    /// <summary>Logits of all heads for some hidden states.</summary>
    /// <param name="hidden">The model's last hidden states, <c>[n, hidden]</c>.</param>
    /// <returns><c>[n · heads, vocabulary]</c>, row i · heads + h is head h on hidden state i; valid until the next call.</returns>
    public abstract DeviceTensor Forward(DeviceTensor hidden);

    /// <summary>Gives the weights back; harmless when repeated.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the weights back.</summary>
    /// <param name="disposing">Always true; there are no finalizers here.</param>
    protected abstract void Dispose(bool disposing);
}
