using System.Text.RegularExpressions;
using System.Xml.Linq;
using Xunit;

namespace Treeline.Tests.Architecture;

/// <summary>Who may know whom (docs/architecture.md): an arrow that runs the other way fails here.</summary>
public partial class ArrowTests
{
    private static readonly Dictionary<string, string[]> Projects = new()
    {
        ["Kernels"] = [],
        ["Kernels.ILGPU"] = ["Kernels"],
        ["Managed"] = ["Kernels"],
        ["Cli"] = ["Kernels", "Kernels.ILGPU", "Managed"],
        ["gpu-check"] = ["Kernels", "Kernels.ILGPU"],
        ["tests"] = ["Kernels", "Kernels.ILGPU", "Managed", "Cli", "gpu-check"],
        ["bench"] = ["Kernels", "Kernels.ILGPU", "Managed"],
        ["samples/Demo"] = ["Kernels", "Managed"],
        ["samples/EngineLoop"] = ["Kernels"],
        ["samples/TextGeneration"] = ["Kernels", "Managed"],
    };

    [Fact]
    public void Projects_reference_only_what_they_may_know()
    {
        foreach (string project in Sources.Files("", "*.csproj"))
        {
            string folder = Path.GetDirectoryName(project)!.Replace('\\', '/');
            Assert.True(Projects.TryGetValue(folder, out string[]? allowed), $"{project}: a project that the list of arrows does not have");
            foreach (string reference in References(project, "ProjectReference"))
            {
                string to = Path.GetRelativePath(Sources.Root, Path.GetFullPath(Path.Combine(Sources.Root, folder, reference.Replace('\\', '/'))));
                Assert.Contains(Path.GetDirectoryName(to)!.Replace('\\', '/'), allowed);
            }
        }
    }

    [Fact]
    public void The_libraries_take_few_packages()
    {
        Assert.Equal(["System.Numerics.Tensors"], References("Kernels/Treeline.Kernels.csproj", "PackageReference"));
        Assert.Equal(["Microsoft.Extensions.Logging.Abstractions", "Microsoft.ML.Tokenizers"], References("Managed/Treeline.csproj", "PackageReference").Order());
        Assert.Equal(["ILGPU", "ILGPU.Algorithms"], References("Kernels.ILGPU/Treeline.Kernels.ILGPU.csproj", "PackageReference"));
    }

    [Fact]
    public void Every_package_is_explained()
    {
        string page = Sources.Read("docs/dependencies.md");
        foreach (XElement package in XDocument.Parse(Sources.Read("Directory.Packages.props")).Descendants("PackageVersion"))
            Assert.Contains($"| {package.Attribute("Include")!.Value} |", page, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Kernels", "Treeline.Kernels")]
    [InlineData("Kernels.ILGPU", "Treeline.Kernels.ILGPU")]
    [InlineData("Managed", "Treeline")]
    public void Folders_keep_to_their_namespace(string folder, string wanted)
    {
        foreach (string path in Sources.Files(folder, "*.cs"))
            foreach (Match match in Namespace().Matches(Sources.Code(path)))
                Assert.True(match.Groups[1].Value == wanted, $"{path}: expected namespace {wanted}, got {match.Groups[1].Value}");
    }

    [Fact]
    public void The_kernels_know_no_house_but_their_own()
    {
        HashSet<string> managed = Sources.DeclaredTypes(Sources.Files("Managed", "*.cs"));
        managed.ExceptWith(Sources.DeclaredTypes(Sources.Files("Kernels", "*.cs")));
        foreach (string path in Sources.Files("Kernels", "*.cs")) RefuseMentions(path, managed, "Managed");
    }

    [Fact]
    public void The_oracle_and_the_cpu_backend_never_see_each_other()
    {
        string[] all = [.. Sources.Files("Kernels", "*.cs")];
        string[] oracle = [.. all.Where(path => path.Contains("/Oracle/", StringComparison.Ordinal) || path.EndsWith(".Oracle.cs", StringComparison.Ordinal))];
        string[] cpu = [.. all.Where(path => path.Contains("/Cpu/", StringComparison.Ordinal) || path.EndsWith(".Cpu.cs", StringComparison.Ordinal))];
        Assert.NotEmpty(oracle);
        Assert.NotEmpty(cpu);
        foreach ((string[] own, string[] other, string name) in new[] { (oracle, cpu, "the CPU backend"), (cpu, oracle, "the oracle") })
        {
            HashSet<string> foreign = Sources.DeclaredTypes(other);
            foreign.ExceptWith(Sources.DeclaredTypes(all.Except(other)));
            foreach (string path in own) RefuseMentions(path, foreign, name);
        }
    }

    [Theory]
    [InlineData("Checkpoints", "Models")]
    [InlineData("Checkpoints", "Decoding")]
    [InlineData("Tokenizers", "Models")]
    [InlineData("Tokenizers", "Decoding")]
    [InlineData("Models", "Decoding")]
    public void Inside_the_library_arrows_run_one_way(string folder, string unknown)
    {
        HashSet<string> foreign = Sources.DeclaredTypes(Sources.Files($"Managed/{unknown}", "*.cs"));
        foreign.ExceptWith(Sources.DeclaredTypes(Sources.Files("Managed", "*.cs").Where(path => !path.StartsWith($"Managed/{unknown}/", StringComparison.Ordinal))));
        foreach (string path in Sources.Files($"Managed/{folder}", "*.cs")) RefuseMentions(path, foreign, unknown);
    }

    private static void RefuseMentions(string path, HashSet<string> foreign, string of) =>
        Assert.True(!Sources.Mentions(path, foreign).Any(), $"{path} knows {string.Join(", ", Sources.Mentions(path, foreign))} of {of}");

    private static IEnumerable<string> References(string project, string kind) =>
        XDocument.Parse(Sources.Read(project)).Descendants(kind).Select(element => element.Attribute("Include")!.Value);

    [GeneratedRegex(@"^namespace\s+([\w.]+)", RegexOptions.Multiline)]
    private static partial Regex Namespace();
}
