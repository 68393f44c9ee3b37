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

    /// <summary>The program that it is part of on OpenCL, which its kernels are built with; elsewhere, and before the first use, empty.</summary>
    public string Program { get; private set; } = "";

    /// <summary>How much of <see cref="FirstUse"/> went by until that program was built: next to nothing where another of its kernels was used before.</summary>
    public TimeSpan ProgramBuild { get; private set; }

    /// <summary>Launches so far.</summary>
    public long Launches { get; private set; }

    internal void Built(string program, TimeSpan time) => (Program, ProgramBuild) = (program, time);

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
