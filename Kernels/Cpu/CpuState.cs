namespace Treeline.Kernels;

public sealed partial class CpuBackend
{
    /// <inheritdoc/>
    protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => throw Unsupported(nameof(CreateState));
}
