using Xunit;

namespace Treeline.Tests.Architecture;

/// <summary>What no file of the repository should hold.</summary>
public class HygieneTests
{
    private static readonly string[] Folders = ["Kernels", "Kernels.ILGPU", "Managed", "Cli", "bench", "gpu-check", "samples", "tests"];

    // Put together from halves, so that this file does not find itself.
    public static TheoryData<string> Unfinished =>
        ["TO" + "DO", "FIX" + "ME", "HA" + "CK", "NotImplemented" + "Exception", "Skip" + " = ", "/ho" + "me/", "/wo" + "rk/", "/Us" + "ers/", @"C" + @":\"];

    [Theory, MemberData(nameof(Unfinished))]
    public void Nothing_is_left_unfinished_or_tied_to_a_machine(string text)
    {
        foreach (string path in Text())
            Assert.False(Sources.Read(path).Contains(text, StringComparison.Ordinal), $"{path} contains {text}");
    }

    [Fact]
    public void A_file_holds_one_idea()
    {
        foreach (string path in Code())
        {
            int lines = Sources.Read(path).Count(c => c == '\n');
            Assert.True(lines <= 500, $"{path} has {lines} lines, at most 500 are wanted");
        }
    }

    // Hardware estimates of 1/x and 1/√x give other bits on other machines.
    [Fact]
    public void Kernels_use_no_estimates()
    {
        foreach (string path in Sources.Files("Kernels", "*.cs"))
            Assert.False(Sources.Code(path).Contains("Estimate(", StringComparison.Ordinal), $"{path} uses an estimate");
    }

    private static IEnumerable<string> Code() =>
        Folders.Where(folder => Directory.Exists(Path.Combine(Sources.Root, folder))).SelectMany(folder => Sources.Files(folder, "*.cs"));

    private static IEnumerable<string> Text() =>
        Code().Concat(Sources.Files("", "*.md")).Concat(Sources.Files("", "*.sh")).Concat(Sources.Files("", "*.csproj"));
}
