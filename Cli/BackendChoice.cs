using System.Diagnostics;
using System.Globalization;
using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>How long a backend took for one step of the probe's workload.</summary>
/// <param name="Name">The backend.</param>
/// <param name="Milliseconds">The median step; of no meaning where there was a problem.</param>
/// <param name="Problem">Why it could not be measured, null where it was.</param>
internal sealed record ProbeTiming(string Name, double Milliseconds, string? Problem = null);

/// <summary>What <c>auto</c> means.</summary>
internal static class BackendChoice
{
    /// <summary>The backend that <c>auto</c> stands for; says which and why.</summary>
    /// <param name="probe">True: decide by measuring. False: a GPU where one is usable, else the CPU.</param>
    /// <param name="options">How backends are opened for the measurement.</param>
    /// <param name="terminal">Told what was chosen.</param>
    public static string Auto(bool probe, BackendOptions options, Terminal terminal)
    {
        (string name, string why) = probe ? Decide([.. Candidates(Backends.Discover()).Select(candidate => Measure(candidate, options, terminal.Cancellation))])
            : (Backends.Choose(out string reason), reason);
        terminal.Say($"backend auto: {name} ({why})");
        return name;
    }

    /// <summary>What is worth measuring: the specification and the debugging device never are.</summary>
    public static IEnumerable<string> Candidates(IEnumerable<BackendInfo> devices) =>
        devices.Where(info => info.IsUsable && info.Name is not ("oracle" or "ilgpu-cpu")).Select(info => info.Name);

    /// <summary>The fastest; of equals the first.</summary>
    /// <exception cref="BackendUnavailableException">None could be measured.</exception>
    public static (string Name, string Why) Decide(IReadOnlyList<ProbeTiming> timings)
    {
        string seen = string.Join(", ", timings.Select(timing => timing.Problem is { } problem ? $"{timing.Name} failed: {problem}"
            : string.Create(CultureInfo.InvariantCulture, $"{timing.Name} {timing.Milliseconds:0.###} ms")));
        ProbeTiming? fastest = timings.Where(timing => timing.Problem is null).MinBy(timing => timing.Milliseconds);
        return fastest is not null ? (fastest.Name, $"the fastest; a decoding step of the probe took: {seen}")
            : throw new BackendUnavailableException($"backend: no backend could be measured: {(seen.Length == 0 ? "there is none" : seen)}");
    }

    private static ProbeTiming Measure(string name, BackendOptions options, CancellationToken cancellation)
    {
        const int WarmUp = 2, Steps = 9;
        try
        {
            using KernelBackend backend = Backends.Open(name, options);
            using var workload = new ProbeWorkload(backend);
            for (int i = 0; i < WarmUp; i++) workload.Step();
            var times = new double[Steps];
            for (int i = 0; i < Steps; i++)
            {
                cancellation.ThrowIfCancellationRequested();
                long start = Stopwatch.GetTimestamp();
                workload.Step();
                times[i] = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            }

            Array.Sort(times);
            return new ProbeTiming(name, times[Steps / 2]);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            return new ProbeTiming(name, 0, e.Message);
        }
    }
}
