using System.Diagnostics;
using System.Text.Json;
using Treeline.Cli;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary>What a run of the tool left.</summary>
internal sealed record ToolRun(int Code, string Out, string Error)
{
    /// <summary>Its answer as JSON: nothing but one object on standard output.</summary>
    public JsonElement Json => JsonDocument.Parse(Out).RootElement;

    /// <summary>Refused with a code and one clear line that holds some words; nothing on standard output.</summary>
    public void Refuses(int code, params string[] words)
    {
        Assert.True(Code == code, $"want exit code {code}, got {Code}: {Error}");
        foreach (string word in words) Assert.Contains(word, Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", Error, StringComparison.Ordinal);
        string line = Assert.Single(Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.StartsWith("treeline: ", line, StringComparison.Ordinal);
        Assert.Equal("", Out);
    }

    public ToolRun Succeeds()
    {
        Assert.True(Code == ExitCodes.Success, $"exit code {Code}: {Error}");
        Assert.Equal("", Error);
        return this;
    }
}

/// <summary>Runs the tool.</summary>
internal static class Tool
{
    /// <summary>In this process.</summary>
    public static ToolRun Run(params string[] args) => Run("", CancellationToken.None, args);

    /// <summary>In this process, with standard input.</summary>
    public static ToolRun Run(string input, CancellationToken cancellation, params string[] args)
    {
        using var reader = new StringReader(input);
        using var output = new StringWriter();
        using var error = new StringWriter();
        int code = Program.Run(args, reader, output, error, cancellation: cancellation);
        return new ToolRun(code, output.ToString(), error.ToString());
    }

    /// <summary>As a process of its own.</summary>
    public static ToolRun Start(string input, params string[] args) => Start(input, backendVariable: null, args);

    /// <summary>As a process of its own that finds a name of a backend in its environment.</summary>
    public static ToolRun StartWith(string backendVariable, params string[] args) => Start("", backendVariable, args);

    // By the program that runs the tests where that is `dotnet`, by the tool's own where the runtime was brought along.
    private static ToolRun Start(string input, string? backendVariable, string[] args)
    {
        string tool = typeof(Program).Assembly.Location;
        bool shared = Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet";
        var start = new ProcessStartInfo(shared ? Environment.ProcessPath! : Path.ChangeExtension(tool, null), shared ? [tool, .. args] : args)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment[Backends.Variable] = backendVariable;
        using Process process = Process.Start(start)!;
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new ToolRun(process.ExitCode, output, error.Result);
    }
}

/// <summary>A folder of its own for a test's files; gone afterwards.</summary>
internal sealed class Folder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("treeline-test-").FullName;

    public string this[string name] => System.IO.Path.Combine(Path, name);

    /// <summary>Names of what lies in it.</summary>
    public string[] Files => [.. Directory.EnumerateFileSystemEntries(Path).Select(path => System.IO.Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
