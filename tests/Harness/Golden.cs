using System.Globalization;

namespace Treeline.Tests.Harness;

/// <summary>Where the recorded outputs of the reference code lie: copies of some in tests/golden, all of them in ../shared/golden where that is present.</summary>
internal static class Golden
{
    /// <summary>The repository's folder.</summary>
    public static string Repository { get; } = FindRepository();

    /// <summary>The copies that come with the repository.</summary>
    public static string Copies => Path.Combine(Repository, "tests", "golden");

    /// <summary>All recordings; may not exist.</summary>
    public static string All => Path.Combine(Repository, "..", "shared", "golden");

    /// <summary>Names of the case files of a kind, such as <c>attention/augmented_…</c>.</summary>
    public static string[] Cases(string kind) => Named(kind, folder => Directory.EnumerateFiles(folder, "*.safetensors"));

    /// <summary>Names of the model folders that begin so, such as <c>models/llama-</c>.</summary>
    public static string[] Models(string prefix) =>
        [.. Named("models", Directory.EnumerateDirectories).Where(name => name.StartsWith($"models/{prefix}", StringComparison.Ordinal))];

    /// <summary>True for what comes with the repository.</summary>
    public static bool IsCopied(string name) => Path.Exists(Path.Combine(Copies, name));

    /// <summary>Path of a case or model: the copy, else the one in ../shared/golden.</summary>
    public static string Locate(string name)
    {
        string copy = Path.Combine(Copies, name);
        return Path.Exists(copy) ? copy : Path.Combine(All, name);
    }

    private static string[] Named(string kind, Func<string, IEnumerable<string>> enumerate) =>
        [.. new[] { Copies, All }.Select(root => Path.Combine(root, kind)).Where(Directory.Exists).SelectMany(enumerate)
            .Select(path => $"{kind}/{Path.GetFileName(path)}").Distinct().Order(StringComparer.Ordinal)];

    private static string FindRepository()
    {
        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
            if (File.Exists(Path.Combine(at.FullName, "Treeline.slnx"))) return at.FullName;
        throw new InvalidOperationException($"no Treeline.slnx above {AppContext.BaseDirectory}");
    }
}

/// <summary>One recorded case: metadata and tensors.</summary>
internal sealed class GoldenCase : IDisposable
{
    private readonly SafetensorsFile _file;

    public GoldenCase(string name) => _file = SafetensorsFile.Open(Golden.Locate(name));

    public string this[string key] => _file.Metadata[key];

    public int Integer(string key) => int.Parse(this[key], CultureInfo.InvariantCulture);

    public float Number(string key) => float.Parse(this[key], CultureInfo.InvariantCulture);

    /// <summary>True where a tensor was recorded.</summary>
    public bool Has(string tensor) => _file.Tensors.Any(stored => stored.Name == tensor);

    public int[] Shape(string tensor) => _file[tensor].Shape.ToArray();

    public float[] Floats(string tensor) => _file[tensor].ToFloat32();

    /// <summary>An int32 or int64 tensor.</summary>
    public int[] Integers(string tensor) => _file[tensor].ToInt32();

    public void Dispose() => _file.Dispose();
}
