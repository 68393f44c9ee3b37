using System.Diagnostics;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary><c>./build.sh treeline ARGS…</c>: what the script makes of arguments and of standard output.</summary>
public class BuildScriptTests
{
    [Fact, Trait("tier", "full"), Trait("needs", "sdk")]
    public void Arguments_are_passed_on_untouched_and_only_the_answer_is_on_standard_output()
    {
        foreach (string text in new[] { "", " ", "two  spaces ", "a \"b\" 'c'", "$HOME `id` $(id) \\ *", "--", "line\nline\n", "-n", "build" })
        {
            using var folder = new Folder();                // paths mean what the caller's folder makes of them
            File.WriteAllText(folder["prompt.txt"], text);
            Assert.Equal(text, Text(folder.Path, "--text", text));
            Assert.Equal(text, Text(folder.Path, "--file", "prompt.txt"));
        }
    }

    [Theory]
    [InlineData]
    [InlineData("frobnicate")]
    [InlineData("--help")]
    [InlineData("test", "half")]
    public void An_unknown_verb_shows_the_usage(params string[] args)
    {
        ToolRun run = Script(Golden.Repository, args);
        Assert.Equal(2, run.Code);
        Assert.Equal("", run.Out);
        Assert.StartsWith("usage: ./build.sh VERB", run.Error, StringComparison.Ordinal);
    }

    private static string? Text(string workingDirectory, params string[] args)
    {
        ToolRun run = Script(workingDirectory, ["treeline", "tokenize", "--model", ModelFolder.Shakespeare, "--json", .. args]);
        Assert.True(run.Code == 0, run.Error);
        return run.Json.GetProperty("text").GetString();
    }

    private static ToolRun Script(string workingDirectory, string[] args)
    {
        var start = new ProcessStartInfo("bash", [Path.Combine(Golden.Repository, "build.sh"), .. args])
        {
            WorkingDirectory = workingDirectory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new ToolRun(process.ExitCode, output, error.Result);
    }
}
