using System.Collections.Concurrent;
using System.Text.RegularExpressions;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Architecture;

/// <summary>The repository's own files, read as text.</summary>
internal static partial class Sources
{
    private static readonly ConcurrentDictionary<string, string> Stripped = [];

    public static string Root => Golden.Repository;

    /// <summary>Files of ours below a folder, as paths relative to <see cref="Root"/> with forward slashes; nothing that was built.</summary>
    public static IEnumerable<string> Files(string folder, string pattern) =>
        from file in Directory.Exists(Path.Combine(Root, folder)) ? Directory.EnumerateFiles(Path.Combine(Root, folder), pattern, SearchOption.AllDirectories) : []
        let path = Path.GetRelativePath(Root, file).Replace('\\', '/')
        where !path.Split('/').Any(part => part is "bin" or "obj" or "artifacts" or ".git")
        orderby path
        select path;

    public static string Read(string path) => File.ReadAllText(Path.Combine(Root, path));

    /// <summary>A C# file without its comments and the contents of its strings: what the compiler acts on.</summary>
    public static string Code(string path) =>
        Stripped.GetOrAdd(path, static path => NotCode().Replace(Read(path), match => match.Value[0] == '"' ? "\"\"" : " "));

    /// <summary>Names of the types that files declare, without private ones: nobody else can mean those.</summary>
    public static HashSet<string> DeclaredTypes(IEnumerable<string> paths) =>
        [.. paths.SelectMany(path => Declaration().Matches(Code(path))).Select(match => match.Groups[1].Value)];

    /// <summary>Words of a file's code that are in a set: the types of that set which it knows.</summary>
    public static IEnumerable<string> Mentions(string path, HashSet<string> names) =>
        Word().Matches(Code(path)).Select(match => match.Value).Where(names.Contains).Distinct();

    [GeneratedRegex(""" "(?:[^"\\\n]|\\.)*" | //[^\n]* | /\*.*?\*/ """, RegexOptions.IgnorePatternWhitespace | RegexOptions.Singleline)]
    private static partial Regex NotCode();

    [GeneratedRegex(@"(?<!\bprivate\b[\w ]*)\b(?:class|struct|interface|enum|record(?: (?:class|struct))?) ([A-Z]\w*)")]
    private static partial Regex Declaration();

    // A method that is called (.Sum(…)) is no mention of a type of that name.
    [GeneratedRegex(@"\b[A-Za-z_]\w*\b(?!(?<=\.\w+)\()")]
    private static partial Regex Word();
}
