using System.Diagnostics;
using System.Xml.Linq;

namespace Treeline.GpuCheck;

/// <summary>The test suite, as a process of its own, with its theories on the backends that are checked.</summary>
internal static class SuiteRun
{
    /// <summary>The suite's program; it lies beside this one in what <c>./build.sh gpu-check</c> makes.</summary>
    public static string Program { get; } = Path.Combine(AppContext.BaseDirectory, "Treeline.Tests");

    /// <summary>Runs a part of it.</summary>
    /// <param name="name">The part's name.</param>
    /// <param name="backends">What takes the place of the usual backends: a name, or several with commas.</param>
    /// <param name="folder">Where the runner's report goes.</param>
    /// <param name="limit">A suite that takes longer is stopped, and has failed.</param>
    /// <param name="lossless">True: kernels that are lossless to the bit alone, whose tests of bits run with the others; false: also a library's products where the device has one.</param>
    /// <param name="filter">Which tests.</param>
    public static SuitePart Run(string name, string backends, string folder, TimeSpan limit, bool lossless, params string[] filter)
    {
        string report = Path.Combine(folder, $"{name.Replace(' ', '-')}.xml");
        File.Delete(report);
        // Two classes at a time, as on the machines where the suite is known to pass: the device is one.
        var start = new ProcessStartInfo(Program, ["-noColor", "-noLogo", "-noAutoReporters", "-maxThreads", "2", "-result-xml", report, "-trait-", "needs=sdk", .. filter]);
        start.Environment["TREELINE_TEST_BACKENDS"] = backends;
        start.Environment["TREELINE_LOSSLESS"] = lossless ? "1" : "0";
        long began = Stopwatch.GetTimestamp();
        using Process process = Process.Start(start)!;
        bool ended = process.WaitForExit(limit);
        if (!ended)
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
        }

        string? trouble = ended ? null : $"stopped after {limit.TotalSeconds:f0} s";
        if (trouble is null && !File.Exists(report)) trouble = $"the runner left no report and ended with code {process.ExitCode}";
        return Read(name, report, process.ExitCode, Stopwatch.GetElapsedTime(began).TotalSeconds, trouble);
    }

    /// <summary>Counts what a report says; no test at all, or a code that the counts do not explain, is a failure too.</summary>
    internal static SuitePart Read(string name, string report, int code, double seconds, string? trouble)
    {
        if (trouble is not null) return new SuitePart(name, 0, 1, 0, seconds, [trouble]);
        XElement[] assemblies = [.. XDocument.Load(report).Descendants("assembly")];
        int Count(string attribute) => assemblies.Sum(assembly => (int?)assembly.Attribute(attribute) ?? 0);
        int passed = Count("passed"), failed = Count("failed") + Count("errors");
        List<string> problems = [.. from test in assemblies.Descendants("test")
                                    where (string?)test.Attribute("result") == "Fail"
                                    select $"FAILED {(string?)test.Attribute("name")}: {FirstLine(test.Descendants("message").FirstOrDefault()?.Value)}"];
        problems.AddRange(from error in assemblies.Descendants("error") select $"ERROR {(string?)error.Attribute("name")}: {FirstLine(error.Descendants("message").FirstOrDefault()?.Value)}");
        problems.AddRange(from test in assemblies.Descendants("test")
                          where (string?)test.Attribute("result") == "Skip"
                          select $"skipped {(string?)test.Attribute("name")}: {FirstLine(test.Element("reason")?.Value)}");
        if (failed == 0 && (code != 0 || passed == 0))
        {
            failed = 1;
            problems.Add($"the runner ended with code {code}; {passed} tests passed");
        }

        return new SuitePart(name, passed, failed, Count("skipped"), seconds, problems);
    }

    private static string FirstLine(string? text) => text?.Split('\n', 2)[0].Trim() ?? "";
}
