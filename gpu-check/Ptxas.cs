using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace Treeline.GpuCheck;

/// <summary>What the assembler says of one kernel on one architecture; bytes a thread but for <paramref name="Shared"/>, which is a group's.</summary>
internal sealed record Assembled(int Registers, int Shared, int Stack, int SpillStores, int SpillLoads);

/// <summary>NVIDIA's assembler, <c>ptxas</c>: from PTX to a GPU's own instructions.</summary>
internal static partial class Ptxas
{
    /// <summary>Where it can be had.</summary>
    public const string HowToGet = "ptxas is neither on the PATH nor in artifacts/tools (on Debian .ci/ptxas fetches it)";

    /// <summary>The program, on the path or in the repository's <c>artifacts/tools</c>; null where it is not.</summary>
    /// <param name="repository">The repository's folder.</param>
    public static string? Find(string repository) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Append(Path.Combine(repository, "artifacts", "tools"))
            .Where(folder => folder.Length > 0).Select(folder => Path.Combine(folder, "ptxas")).FirstOrDefault(File.Exists);

    /// <summary>Its version, such as 11.8.</summary>
    public static Version Version(string ptxas) => System.Version.Parse(Release().Match(Run(ptxas, ["--version"])).Groups[1].Value);

    /// <summary>Assembles a kernel.</summary>
    /// <exception cref="InvalidOperationException">The assembler refuses it; the message is the assembler's.</exception>
    public static Assembled Assemble(string ptxas, string code, string architecture)
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, code);
            string said = Run(ptxas, ["-v", $"-arch={architecture}", "-o", OperatingSystem.IsWindows() ? "NUL" : "/dev/null", file]);
            // Functions that were not inlined have lines of their own: the deepest counts.
            int Most(Regex pattern) => pattern.Matches(said).Select(match => int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture)).DefaultIfEmpty(0).Max();
            return new Assembled(Most(Registers()), Most(Shared()), Most(Stack()), Most(SpillStores()), Most(SpillLoads()));
        }
        finally
        {
            File.Delete(file);
        }
    }

    private static string Run(string program, string[] args)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, args) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        output += error.Result;
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{program} ended with code {process.ExitCode}: {output}");
    }

    [GeneratedRegex(@"release (\d+\.\d+)")]
    private static partial Regex Release();

    [GeneratedRegex(@"Used (\d+) registers")]
    private static partial Regex Registers();

    [GeneratedRegex(@"(\d+) bytes smem")]
    private static partial Regex Shared();

    [GeneratedRegex(@"(\d+) bytes stack frame")]
    private static partial Regex Stack();

    [GeneratedRegex(@"(\d+) bytes spill stores")]
    private static partial Regex SpillStores();

    [GeneratedRegex(@"(\d+) bytes spill loads")]
    private static partial Regex SpillLoads();
}
