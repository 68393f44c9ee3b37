using System.Text.Json;

namespace Treeline.Cli;

/// <summary>Medusa's list of choices as JSON: <c>[[0], [0, 0], [1], …]</c>.</summary>
internal static class ChoiceList
{
    /// <exception cref="JsonException">It is not a list of lists of whole numbers.</exception>
    public static int[][] Parse(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        if (document.RootElement.ValueKind != JsonValueKind.Array) throw new JsonException("expected a list of lists of ranks");
        return [.. document.RootElement.EnumerateArray().Select(Choice)];
    }

    private static int[] Choice(JsonElement choice)
    {
        if (choice.ValueKind != JsonValueKind.Array) throw new JsonException($"expected a list of ranks, got {choice.GetRawText()}");
        return [.. choice.EnumerateArray().Select(rank => rank.ValueKind == JsonValueKind.Number && rank.TryGetInt32(out int value) ? value
            : throw new JsonException($"expected whole numbers, got {rank.GetRawText()}"))];
    }
}
