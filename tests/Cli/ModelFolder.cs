using Treeline.Tests.Harness;

namespace Treeline.Tests.Cli;

/// <summary>Copies of recorded model folders with something changed.</summary>
internal static class ModelFolder
{
    /// <summary>A small linearized LLaMA with Medusa heads, no tokenizer.</summary>
    public const string Llama = "models/llama-augmented";

    /// <summary>A small softmax LLaMA.</summary>
    public const string Softmax = "models/llama-softmax";

    /// <summary>The model that ships, with a tokenizer.</summary>
    public static string Shakespeare => Path.Combine(Golden.Repository, "models", "shakespeare-2m");

    /// <summary>Copies a folder.</summary>
    /// <param name="from">The folder.</param>
    /// <param name="to">The folder to make.</param>
    /// <param name="without">Files to leave out.</param>
    public static string Copy(string from, string to, params ReadOnlySpan<string> without)
    {
        Directory.CreateDirectory(to);
        foreach (string file in Directory.GetFiles(from))
            if (!without.Contains(Path.GetFileName(file))) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        return to;
    }

    /// <summary>Replaces a word of the copy's <c>config.json</c>.</summary>
    public static void Edit(string folder, string old, string replacement)
    {
        string config = Path.Combine(folder, "config.json");
        string text = File.ReadAllText(config);
        if (!text.Contains(old, StringComparison.Ordinal)) throw new ArgumentException($"{config} has no {old}", nameof(old));
        File.WriteAllText(config, text.Replace(old, replacement, StringComparison.Ordinal));
    }
}
