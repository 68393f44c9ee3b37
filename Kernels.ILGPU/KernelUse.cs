using System.Diagnostics;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>A kernel that a device has compiled, and what it was used for so far.</summary>
public sealed class KernelUse
{
    private long _started;

    internal KernelUse(string kernel) => Kernel = kernel;

    /// <summary>The kernel's name.</summary>
    public string Kernel { get; }

    /// <summary>What its first use took: ILGPU's compiler, the driver's, and the first launch, at which some drivers compile; zero before that.</summary>
    public TimeSpan FirstUse { get; private set; }

    /// <summary>Launches so far.</summary>
    public long Launches { get; private set; }

    internal void Compiled(TimeSpan time) => FirstUse = time;

    // Called around every launch. The first one is waited for: drivers compile in the background, and an error of theirs should come from here.
    internal void Before(AcceleratorStream stream)
    {
        if (Launches > 0) return;
        stream.Synchronize();
        _started = Stopwatch.GetTimestamp();
    }

    internal void After(AcceleratorStream stream)
    {
        if (Launches++ > 0) return;
        stream.Synchronize();
        FirstUse += Stopwatch.GetElapsedTime(_started);
    }
}
