using System.Globalization;
using System.Text.Json;

namespace Treeline.Cli;

/// <summary>What decoding has done and where its time went, as text and as JSON.</summary>
internal static class StatisticsReport
{
    public static void Print(TextWriter output, DecodingStatistics statistics, string finishReason)
    {
        void Line(FormattableString text) => output.WriteLine(text.ToString(CultureInfo.InvariantCulture));
        double prefill = statistics.PrefillTime.TotalSeconds;
        Line($"prompt: {statistics.PromptTokens} tokens in {prefill:0.000} s ({(prefill > 0 ? statistics.PromptTokens / prefill : 0):0.#} a second)");
        Line($"text: {statistics.Tokens} tokens in {(statistics.TotalTime - statistics.PrefillTime).TotalSeconds:0.000} s ({statistics.TokensPerSecond:0.#} a second), ended by {finishReason}");
        Line($"steps: {statistics.SequenceSteps}, {statistics.TokensPerStep:0.00} tokens a step");
        for (int depth = 0; depth < statistics.Tried.Length; depth++)
            Line($"guesses at depth {depth + 1}: {statistics.Accepted[depth]} of {statistics.Tried[depth]} accepted");
        for (int nodes = 0; nodes < statistics.TreeSizes.Length; nodes++)
            if (statistics.TreeSizes[nodes] > 0) Line($"trees of {nodes} node{(nodes == 1 ? "" : "s")}: {statistics.TreeSizes[nodes]}");
        foreach ((string phase, TimeSpan time) in Phases(statistics)) Line($"time, {phase}: {time.TotalSeconds:0.000} s");
    }

    public static void Write(Utf8JsonWriter json, DecodingStatistics statistics)
    {
        json.WriteStartObject("statistics");
        json.WriteNumber("prompt_tokens", statistics.PromptTokens);
        json.WriteNumber("tokens", statistics.Tokens);
        json.WriteNumber("steps", statistics.SequenceSteps);
        json.WriteNumber("forwards", statistics.Forwards);
        json.WriteReal("tokens_per_step", statistics.TokensPerStep);
        json.WriteReal("tokens_per_second", statistics.TokensPerSecond);
        json.WriteStartArray("depths");
        for (int depth = 0; depth < statistics.Tried.Length; depth++)
        {
            json.WriteStartObject();
            json.WriteNumber("tried", statistics.Tried[depth]);
            json.WriteNumber("accepted", statistics.Accepted[depth]);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("trees");
        for (int nodes = 0; nodes < statistics.TreeSizes.Length; nodes++)
        {
            if (statistics.TreeSizes[nodes] == 0) continue;
            json.WriteStartObject();
            json.WriteNumber("nodes", nodes);
            json.WriteNumber("steps", statistics.TreeSizes[nodes]);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartObject("seconds");
        foreach ((string phase, TimeSpan time) in Phases(statistics)) json.WriteNumber(phase, time.TotalSeconds);
        json.WriteEndObject();
        json.WriteEndObject();
    }

    private static (string Phase, TimeSpan Time)[] Phases(DecodingStatistics statistics) =>
    [
        ("prefill", statistics.PrefillTime),
        ("draft", statistics.DraftTime),
        ("forward", statistics.ForwardTime),
        ("select", statistics.SelectTime),
        ("commit", statistics.CommitTime),
    ];
}
