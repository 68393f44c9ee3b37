namespace Treeline.Kernels;

/// <summary>One layer's attention with its weights; made by <see cref="KernelBackend.Bind"/>.</summary>
public sealed class AttentionLayer : IDisposable
{
    private readonly IReadOnlyDictionary<string, DeviceTensor> _weights;
    private readonly DeviceTensor[] _tensors;               // the same: to be walked without an enumerator
    private bool _disposed;

    internal AttentionLayer(KernelBackend backend, AttentionSpec spec, Attention attention, IReadOnlyDictionary<string, DeviceTensor> weights)
    {
        Backend = backend;
        Spec = spec;
        Attention = attention;
        _weights = weights;
        _tensors = [.. weights.Values];
    }

    /// <summary>Whose kernels run it.</summary>
    public KernelBackend Backend { get; }

    /// <summary>What it computes.</summary>
    public AttentionSpec Spec { get; }

    internal Attention Attention { get; }

    /// <summary>What the backend derived from the weights when they were bound.</summary>
    internal object? Prepared { get; set; }

    /// <summary>A bound weight.</summary>
    /// <param name="name">Its name.</param>
    public DeviceTensor this[string name] => _weights[name];

    /// <summary>Gives back what the backend derived; the bound tensors stay their owner's. Harmless when repeated.</summary>
    public void Dispose()
    {
        using KernelBackend.Call call = Backend.WaitForTurn();
        _disposed = true;
        (Prepared as IDisposable)?.Dispose();
        Prepared = null;
    }

    /// <summary>Refuses a layer that was disposed, or one of whose tensors was.</summary>
    internal void RequireWhole()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        foreach (DeviceTensor tensor in _tensors)
            if (tensor.Buffer.IsDisposed) throw new ObjectDisposedException(nameof(AttentionLayer), "layer: a tensor that it binds was given back");
    }
}
