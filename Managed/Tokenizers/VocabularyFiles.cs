using System.Text.Json;

namespace Treeline;

/// <summary>Reads GPT-2's own files: <c>vocab.json</c> and <c>merges.txt</c>.</summary>
internal static class VocabularyFiles
{
    public const string Vocabulary = "vocab.json", Merges = "merges.txt";

    // What GPT-2's special tokens are where no file says so.
    private const string EndOfText = "<|endoftext|>";

    public static ByteLevelModel Read(string folder)
    {
        string path = Path.Combine(folder, Vocabulary);
        Dictionary<string, int> vocabulary = ReadVocabulary(JsonFile.Read(path));
        var config = new TokenizerConfig(folder);
        List<AddedToken> added = [.. config.Added(vocabulary)];
        if (vocabulary.TryGetValue(EndOfText, out int end)) added.Add(new AddedToken(EndOfText, end));
        return new ByteLevelModel
        {
            File = path,
            Vocabulary = vocabulary,
            Merges = ReadMerges(Path.Combine(folder, Merges)),
            Added = added,
            Splitters = [new TextSplitter(TextSplitter.Gpt2)],
            AddsPrefixSpace = config.AddsPrefixSpace ?? false,
            Before = config.AddsBos ?? false ? [Frame("bos_token")] : [],
            After = config.AddsEos ?? false ? [Frame("eos_token")] : [],
        };

        int Frame(string key)
        {
            string name = config.Special(key) ?? EndOfText;
            return added.Find(token => token.Text == name)?.Id ?? throw new CheckpointException(path, null, $"{key}: '{name}' is not in the vocabulary");
        }
    }

    /// <summary><c>{"name": id, …}</c></summary>
    public static Dictionary<string, int> ReadVocabulary(JsonFields fields)
    {
        var vocabulary = new Dictionary<string, int>();
        foreach (JsonProperty property in fields.Value.EnumerateObject())
        {
            // Not by its name: looking up each of 128,000 would go through all the others.
            string name = fields.Text(property);
            if (property.Value.ValueKind != JsonValueKind.Number || !property.Value.TryGetInt32(out int id) || !TokenizerText.IsId(id)) throw fields.Bad(name, "expected a token's id");
            vocabulary.Add(name, id);
        }

        return vocabulary;
    }

    // A first line with the format's version, then "left right" in each.
    private static List<(string, string)> ReadMerges(string path)
    {
        var merges = new List<(string, string)>();
        int number = 0;
        foreach (string line in ReadLines(path))
        {
            number++;
            if (line.Length == 0 || (number == 1 && line.StartsWith("#version", StringComparison.Ordinal))) continue;
            merges.Add(Merge(line) ?? throw new CheckpointException(path, null, $"line {number}: expected two tokens with a space between, got '{line}'"));
        }

        return merges;
    }

    /// <summary>Two names with a space between, null where that is not what it is.</summary>
    public static (string Left, string Right)? Merge(string line) =>
        line.Split(' ') is [{ Length: > 0 } left, { Length: > 0 } right] ? (left, right) : null;

    private static string[] ReadLines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new CheckpointException(path, null, "file not found", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CheckpointException(path, null, e.Message, e);
        }
    }
}
