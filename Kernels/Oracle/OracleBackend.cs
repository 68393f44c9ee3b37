using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

/// <summary>The specification as code: plain loops, float64 throughout, never optimised. What every other backend is checked against.</summary>
/// <remarks>
/// Takes float64 tensors too, which no other backend does. Like the CPU backend it is lossless to the bit: every sum runs over a token's own path in order.
/// It shares no arithmetic with what it checks.
/// </remarks>
public sealed partial class OracleBackend : HostBackend
{
    /// <inheritdoc/>
    public override string Name => "oracle";

    /// <inheritdoc/>
    public override string Description => "float64 plain loops, one thread: the executable specification";

    /// <inheritdoc/>
    public override bool IsLosslessToTheBit => true;

    internal override Types FloatInputs => Floats | Types.Float64;

    internal override Types FloatOutputs => Types.Float32 | Types.Float64;

    /// <inheritdoc/>
    protected override bool SupportsCore(AttentionSpec spec, out string why)
    {
        why = "";
        return true;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing) { }
}

internal sealed class OracleBackendProvider : IBackendProvider
{
    public string Family => "oracle";

    public IEnumerable<BackendInfo> Discover()
    {
        using var backend = new OracleBackend();
        return [new BackendInfo(backend.Name, backend.Description, "")];
    }

    public KernelBackend Open(string name, BackendOptions options) => name == Family
        ? new OracleBackend()
        : throw new BackendUnavailableException($"backend: expected oracle, got {name}");
}
