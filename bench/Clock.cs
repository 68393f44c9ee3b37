using System.Diagnostics;

namespace Treeline.Bench;

/// <summary>Times two things in turns, so that a machine that slows down slows both.</summary>
internal static class Clock
{
    private const int Warmups = 5, Turns = 21;

    /// <summary>Median over the turns of (time of one run of <paramref name="what"/>) / (time of one run of <paramref name="baseline"/>).</summary>
    public static double Ratio(Action what, Action baseline)
    {
        int whats = RunsPerTurn(what), baselines = RunsPerTurn(baseline);
        var ratios = new double[Turns];
        for (int i = 0; i < Turns; i++) ratios[i] = Seconds(what, whats) / Seconds(baseline, baselines);
        Array.Sort(ratios);
        return ratios[Turns / 2];
    }

    /// <summary>Seconds of one run, over so many.</summary>
    private static double Seconds(Action action, int runs)
    {
        long began = Stopwatch.GetTimestamp();
        for (int i = 0; i < runs; i++) action();
        return Stopwatch.GetElapsedTime(began).TotalSeconds / runs;
    }

    // A turn takes some 10 ms: long against the clock's resolution, short against the machine's moods.
    private static int RunsPerTurn(Action action)
    {
        for (int i = 0; i < Warmups; i++) action();
        return Math.Clamp((int)(0.01 / Seconds(action, 3)), 1, 10_000);
    }
}
