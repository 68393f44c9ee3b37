using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Treeline.Kernels;

namespace Treeline.GpuCheck;

/// <summary>What a machine with a GPU is asked: its devices, the suite on one of them, times of the ops. docs/gpu-check.md tells how to read it.</summary>
internal static partial class Check
{
    private const string Usage = "usage: gpu-check [BACKEND] [--quick] [--out FOLDER]     BACKEND: cuda:0 unless said otherwise; --quick: the quick tier alone";

    /// <summary>Exit codes.</summary>
    private const int AllWell = 0, Failed = 1, BadUsage = 2, NoDevice = 3;

    private static readonly TimeSpan MeasuringLimit = TimeSpan.FromMinutes(10);

    /// <summary>Runs the check.</summary>
    /// <returns>0 all well, 1 something failed, 2 not asked properly, 3 the backend cannot be used here.</returns>
    public static int Run(string[] args)
    {
        string backend = "cuda:0", folder = Directory.GetCurrentDirectory();
        bool quick = false;
        for (int i = 0; i < args.Length; i++)
        {
            if (args[i] == "--quick") quick = true;
            else if (args[i] == "--out" && i + 1 < args.Length) folder = args[++i];
            else if (args[i].StartsWith('-')) return Refuse($"gpu-check: expected --quick or --out FOLDER, got {args[i]}\n{Usage}");
            else backend = args[i];
        }

        if (!File.Exists(SuiteRun.Program)) return Refuse($"gpu-check: {SuiteRun.Program} is missing; ./build.sh gpu-check makes a folder that has it");
        Directory.CreateDirectory(folder);
        var record = new CheckRecord(Version, DateTime.UtcNow, $"{RuntimeInformation.OSDescription}, {Environment.ProcessorCount} cores, {RuntimeInformation.FrameworkDescription}", backend)
        {
            Driver = Driver(),
            Devices = [.. Backends.Discover().Select(info => new FoundDevice(info.Name, info.Description, info.WhyNot))],
        };
        int code = Fill(record, folder, quick);
        record.Save(folder);
        Console.WriteLine($"\n{record.Table()}");
        Console.WriteLine($"written: {Path.Combine(folder, "gpu-check.json")} and gpu-check.txt");
        return code;
    }

    private static int Fill(CheckRecord record, string folder, bool quick)
    {
        Console.WriteLine(record.Table());
        bool hasLibrary;
        try
        {
            using KernelBackend backend = Backends.Open(record.Backend, new BackendOptions { Lossless = false });
            hasLibrary = !backend.IsLosslessToTheBit;
            record.Device = $"{backend.Description}; products of float32: {backend.Describe(WeightForm.Float32)}";
        }
        catch (BackendUnavailableException e)
        {
            record.Verdict = $"nothing was checked: {record.Backend} cannot be used here. {e.Message}";
            return NoDevice;
        }

        // Correct first: a time of a kernel that is wrong means nothing, but is taken all the same, since the machine may be lent.
        record.Suite.Add(SuiteRun.Run("quick tier", record.Backend, folder, TimeSpan.FromMinutes(20), lossless: true, "-trait-", "tier=full"));
        record.Save(folder);
        string trouble = Measure(record, folder);
        record.Save(folder);
        string other = record.Backend == "cpu" ? "oracle" : "cpu";
        record.Suite.Add(SuiteRun.Run("sequences that move", $"{other},{record.Backend}", folder, TimeSpan.FromMinutes(10), lossless: true, "-class", "*.SwapTests", "-class", "*.SnapshotTests"));
        record.Save(folder);
        if (hasLibrary) record.Suite.Add(SuiteRun.Run("products by a library", record.Backend, folder, TimeSpan.FromMinutes(10), lossless: false, "-method", "*.LinearTests.Agrees_with_the_oracle", "-method", "*.GoldenModelTests.*", "-trait-", "tier=full"));
        record.Save(folder);
        if (!quick) record.Suite.Add(SuiteRun.Run("full tier", record.Backend, folder, TimeSpan.FromMinutes(40), lossless: true, "-trait", "tier=full"));
        int failed = record.Suite.Sum(part => part.Failed);
        record.Verdict = (failed, trouble) switch
        {
            (0, "") => quick ? "all well (quick tier only)" : "all well",
            (_, "") => $"{failed} tests failed",
            _ => $"{failed} tests failed; measuring: {trouble}",
        };
        return failed == 0 && trouble.Length == 0 ? AllWell : Failed;
    }

    // In a process of its own: a driver that ends it must not take the suite's result with it.
    private static string Measure(CheckRecord record, string folder)
    {
        string file = Path.Combine(folder, "measures.json");
        File.Delete(file);
        using Process process = Process.Start(Environment.ProcessPath!, ["measure", record.Backend, file]);
        bool ended = process.WaitForExit(MeasuringLimit);
        if (!ended)
        {
            process.Kill();
            process.WaitForExit();
        }

        if (File.Exists(file)) record.Measures = JsonSerializer.Deserialize<Measures>(File.ReadAllText(file), CheckRecord.Indented);
        return !ended ? $"stopped after {MeasuringLimit.TotalSeconds:f0} s" : process.ExitCode != 0 ? $"ended with code {process.ExitCode}" : "";
    }

    private static int Refuse(string message)
    {
        Console.Error.WriteLine(message);
        return BadUsage;
    }

    // With the commit that it was built from, where it was built in a clone.
    private static string Version => typeof(KernelBackend).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion;

    private static string Driver()
    {
        const string File = "/proc/driver/nvidia/version";
        return System.IO.File.Exists(File) ? DriverVersion().Match(System.IO.File.ReadAllText(File)).Value : "";
    }

    [GeneratedRegex(@"\d+\.\d+(\.\d+)?")]
    private static partial Regex DriverVersion();
}
