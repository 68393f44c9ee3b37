using System.Text.RegularExpressions;
using Xunit;

namespace Treeline.Tests.Architecture;

/// <summary>What the documents show is what there is.</summary>
public partial class DocumentationTests
{
    [Fact]
    public void The_lines_in_the_README_are_the_sample_that_is_compiled()
    {
        string shown = CSharp().Match(Sources.Read("README.md")).Groups[1].Value;
        string sample = Sources.Read("samples/TextGeneration/Program.cs");
        Assert.Equal(sample[sample.IndexOf("using", StringComparison.Ordinal)..], shown);
        Assert.True(shown.Split('\n').Count(line => line.Length > 0) <= 10, "more than ten lines");
    }

    [Fact]
    public void Links_lead_somewhere()
    {
        foreach (string page in Sources.Files("", "*.md").Where(page => !page.StartsWith("tests/golden/", StringComparison.Ordinal)))
        {
            foreach (Match link in Link().Matches(Sources.Read(page)))
            {
                string target = link.Groups[1].Value;
                if (target.Contains("://", StringComparison.Ordinal)) continue;
                Assert.True(Path.Exists(Path.Combine(Sources.Root, Path.GetDirectoryName(page)!, target)), $"{page}: nothing at {target}");
            }
        }
    }

    [Fact]
    public void Every_verb_of_the_script_is_explained_by_it()
    {
        string script = Sources.Read("build.sh");
        foreach (Match verb in Verb().Matches(script[script.IndexOf("case \"${1:-}\"", StringComparison.Ordinal)..]))
            Assert.Contains($"  {verb.Groups[1].Value} ", script[..script.IndexOf("TXT\n}", StringComparison.Ordinal)], StringComparison.Ordinal);
    }

    [Fact]
    public void Every_attention_has_its_page()
    {
        foreach (Treeline.Kernels.Attention attention in Treeline.Kernels.Attentions.All)
            Assert.Contains($"docs/attentions/{attention.Name}.md", Sources.Files("docs", "*.md"));
    }

    [GeneratedRegex("```csharp\n(.*?)```", RegexOptions.Singleline)]
    private static partial Regex CSharp();

    [GeneratedRegex(@"\]\(([^)#]+)(?:#[^)]*)?\)")]
    private static partial Regex Link();

    [GeneratedRegex(@"^    ([a-z-]+)\)", RegexOptions.Multiline)]
    private static partial Regex Verb();
}
