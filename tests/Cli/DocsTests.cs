using System.Globalization;
using Treeline.Cli;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary>docs/tool.md says everything that the tool can do.</summary>
public class DocsTests
{
    private static readonly string Page = File.ReadAllText(Path.Combine(Golden.Repository, "docs", "tool.md"));

    public static TheoryData<string> Verbs => [.. Program.VerbNames];

    [Theory, MemberData(nameof(Verbs))]
    public void Every_verb_has_a_section_that_names_its_options(string verb)
    {
        Assert.Contains($"\n| [`{verb}`](#{verb}) |", Page, StringComparison.Ordinal);
        int start = Page.IndexOf($"\n## {verb}\n", StringComparison.Ordinal);
        Assert.True(start > 0, $"there is no section {verb}");
        int end = Page.IndexOf("\n## ", start + 1, StringComparison.Ordinal);
        string section = end < 0 ? Page[start..] : Page[start..end];
        int shared = Page.IndexOf("\n## Options of several verbs", StringComparison.Ordinal);
        string common = Page[shared..Page.IndexOf("\n## ", shared + 1, StringComparison.Ordinal)];
        Assert.Contains($"treeline {verb}", section, StringComparison.Ordinal);
        foreach (string option in Program.OptionsOf(verb))
            Assert.True(section.Contains($"`{option}", StringComparison.Ordinal) || common.Contains($"| `{option}", StringComparison.Ordinal), $"{verb}: {option} is not named");
    }

    [Fact]
    public void Every_exit_code_is_named()
    {
        foreach ((int code, _) in ExitCodes.All) Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"\n| {code} | "), Page, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_word_of_an_option_is_named()
    {
        foreach (string word in new[] { "none", "medusa", "lookup", "auto", "medusa63", "chain:N", "greedy", "typical", "lossless", "stored", "float32", "bfloat16", "float16", "int8", "int4", "in-place" })
            Assert.Contains($"`{word}`", Page, StringComparison.Ordinal);
    }
}
