using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>SIMD kernels on the host's cores: the default. Lossless to the bit: a token's result depends on its path alone.</summary>
/// <remarks>A backend of your own may derive from it and replace single ops.</remarks>
public partial class CpuBackend : HostBackend
{
    // Rows of a group are held and scored at once; what is longer wants another attention, and its sizes another arithmetic.
    private const int LargestGroup = 1 << 20;

    /// <summary>Opens the backend.</summary>
    /// <param name="options">Threads and their placement; null: one thread per core, not pinned.</param>
    /// <exception cref="ArgumentOutOfRangeException">The number of threads is negative or above 1,024.</exception>
    public CpuBackend(BackendOptions? options = null) : this(options, Simd.Width) { }

    /// <summary>Opens the backend with narrower vectors than the machine has: for tests.</summary>
    internal CpuBackend(BackendOptions? options, int width)
    {
        options ??= new BackendOptions();
        ArgumentOutOfRangeException.ThrowIfNegative(options.Threads, nameof(options));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.Threads, 1024, nameof(options));
        Kernels = CpuKernels.For(width);
        Threads = new CpuThreads(options.Threads, options.PinThreads);
    }

    /// <inheritdoc/>
    public override string Name => "cpu";

    /// <inheritdoc/>
    public override string Description =>
        $"{RuntimeInformation.ProcessArchitecture}, {(Kernels.Width == 1 ? "scalar code" : $"{32 * Kernels.Width}-bit vectors")}{(Simd.HasFma ? ", FMA" : "")}, {Threads.Count} thread{(Threads.Count == 1 ? "" : "s")}{(Threads.PinRefused ? ", which the system does not let be pinned" : "")}";

    /// <inheritdoc/>
    public override bool IsLosslessToTheBit => true;

    internal CpuKernels Kernels { get; }

    internal CpuThreads Threads { get; }

    /// <inheritdoc/>
    protected override bool SupportsCore(AttentionSpec spec, out string why)
    {
        ArgumentNullException.ThrowIfNull(spec);
        why = spec switch
        {
            { GroupSize: > 0 and < 16 or > LargestGroup } => $"GroupSize: expected 0 or 16 to {LargestGroup}, got {spec.GroupSize}",
            { ConvTaps: > LargestGroup } => $"ConvTaps: expected 0 to {LargestGroup}, got {spec.ConvTaps}",
            { HeadDim: > 256 } => $"HeadDim: expected 1 to 256, got {spec.HeadDim}",
            { ValueDim: > 4096 } => $"ValueDim: expected 1 to 4096, got {spec.ValueDim}",
            _ => "",
        };
        return why.Length == 0;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing) => Threads.Dispose();
}

internal sealed class CpuBackendProvider : IBackendProvider
{
    public string Family => "cpu";

    public IEnumerable<BackendInfo> Discover()
    {
        using var backend = new CpuBackend(new BackendOptions { Threads = 1 });
        return [new BackendInfo(backend.Name, backend.Description, "")];
    }

    public KernelBackend Open(string name, BackendOptions options) => name == Family
        ? new CpuBackend(options)
        : throw new BackendUnavailableException($"backend: expected cpu, got {name}");
}
