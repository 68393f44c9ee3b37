namespace Treeline;

/// <summary>What a missing tensor may have been called instead.</summary>
internal static class NearestNames
{
    private const int Shown = 3;

    // Distances cost the product of the lengths; nobody's parameter is longer.
    private const int LongestCompared = 200;

    /// <summary>The exception for a tensor that is not there, with the names that come nearest.</summary>
    public static CheckpointException Missing(string file, string name, IReadOnlyCollection<string> names)
    {
        string[] nearest = [.. names.Where(n => n.Length <= LongestCompared).Take(10_000).OrderBy(n => Distance(name, n)).ThenBy(n => n, StringComparer.Ordinal).Take(Shown)];
        string hint = nearest.Length == 0 ? "the checkpoint holds no tensors" : $"the nearest of {names.Count} are {string.Join(", ", nearest.Select(n => $"'{n}'"))}";
        return new CheckpointException(file, name, $"not found; {hint}");
    }

    // Edits from one name to the other (Levenshtein), one row of the table at a time.
    private static int Distance(string from, string to)
    {
        if (from.Length > LongestCompared) from = from[..LongestCompared];
        var row = new int[to.Length + 1];
        for (int j = 0; j < row.Length; j++) row[j] = j;
        for (int i = 1; i <= from.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= to.Length; j++)
            {
                int change = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(change, Math.Min(row[j], row[j - 1]) + 1);
            }
        }

        return row[^1];
    }
}
