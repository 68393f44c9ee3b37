using System.Globalization;
using System.Text.Json;

namespace Treeline.Cli.Comparison;

/// <summary>How backends compare, for people and for programs.</summary>
/// <param name="Backends">The reference, then the others.</param>
/// <param name="Ops">A row for each output of each op.</param>
/// <param name="Model">The model's part, null where none was given.</param>
internal sealed record ComparisonReport(IReadOnlyList<string> Backends, IReadOnlyList<Row> Ops, ModelComparison? Model)
{
    /// <summary>The highest of all findings.</summary>
    public int ExitCode => Ops.Concat(Model?.Rows ?? []).SelectMany(row => row.Findings).Select(finding => finding.ExitCode)
        .Concat((Model?.Texts ?? []).Select(text => text.ExitCode)).Max();

    public void Print(TextWriter output)
    {
        output.WriteLine($"largest difference from {Backends[0]}, by op");
        Print(output, Ops);
        if (Model is not null)
        {
            output.WriteLine();
            output.WriteLine($"{Model.Folder}, {Model.Ids.Length} tokens: largest difference from {Backends[0]}, by layer");
            Print(output, Model.Rows);
        }

        output.WriteLine();
        for (int i = 0; i + 1 < Backends.Count; i++)
        {
            output.WriteLine($"{Backends[i + 1]}: {Verdict("ops", Ops, i)}");
            if (Model is null) continue;
            output.WriteLine($"{Backends[i + 1]}: {Verdict("layers and logits", Model.Rows, i)}");
            output.WriteLine($"{Backends[i + 1]}: {Describe(Model.Texts[i])}");
        }
    }

    public void Write(Utf8JsonWriter json)
    {
        json.WriteString("reference", Backends[0]);
        json.WriteStartArray("backends");
        foreach (string name in Backends) json.WriteStringValue(name);
        json.WriteEndArray();
        Write(json, "ops", Ops);
        WriteFirst(json, "first_op", Ops);
        if (Model is null)
        {
            json.WriteNull("model");
        }
        else
        {
            json.WriteStartObject("model");
            json.WriteString("folder", Model.Folder);
            json.WriteArray("ids", Model.Ids);
            Write(json, "layers", Model.Rows);
            WriteFirst(json, "first_layer", Model.Rows);
            json.WriteStartArray("texts");
            foreach (TextFinding text in Model.Texts) Write(json, text);
            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteNumber("exit_code", ExitCode);
    }

    private void Print(TextWriter output, IReadOnlyList<Row> rows)
    {
        List<string[]> lines = [["", "tolerance", .. Backends.Skip(1)]];
        lines.AddRange(rows.Select(row => (string[])[$"  {row.Name}", row.IsInteger ? "equal" : Number(row.Tolerance), .. row.Findings.Select(finding => Describe(row, finding))]));
        Columns.Write(output, lines);
    }

    private static string Describe(Row row, Finding finding) => finding switch
    {
        { Problem: not null } => "NOT COMPUTED",
        { IsWithin: true } => row.IsInteger ? "equal" : $"{Number(finding.Error)} OK",
        _ => row.IsInteger ? $"{finding.Error} DIFFER" : $"{Number(finding.Error)} DIFFERS",
    };

    private static string Verdict(string what, IReadOnlyList<Row> rows, int other)
    {
        Row? first = rows.FirstOrDefault(row => !row.Findings[other].IsWithin);
        if (first is null) return $"{what}: all {rows.Count} agree";
        int count = rows.Count(row => !row.Findings[other].IsWithin);
        return $"{what}: {count} of {rows.Count} DO NOT AGREE, the first is {first.Name}{(first.Findings[other].Problem is { } problem ? $" ({problem})" : "")}";
    }

    private string Describe(TextFinding text)
    {
        if (text.Problem is { } problem) return $"text: NOT COMPUTED ({problem})";
        if (text.PartsAt is not { } at) return $"text: identical for {text.Tokens} tokens";
        string verdict = text.IsFair ? "which rounding may decide" : $"NOT a choice of rounding (that is under {Number(Measure.LeastMargin)})";
        return $"text: identical for {at} tokens; token {at} is {Show(text.ReferenceToken)} on {Backends[0]} and {Show(text.Token)} here, "
            + $"where the two best logits are {Number(text.ReferenceMargin)} apart on {Backends[0]} and {Number(text.Margin)} here: {verdict}";
    }

    private string Show(int token) => Model!.Tokenizer is { } tokenizer ? $"{token} {JsonSerializer.Serialize(tokenizer.Decode([token]))}" : $"{token}";

    private static void Write(Utf8JsonWriter json, string name, IReadOnlyList<Row> rows)
    {
        json.WriteStartArray(name);
        foreach (Row row in rows)
        {
            json.WriteStartObject();
            json.WriteString("name", row.Name);
            json.WriteBoolean("integer", row.IsInteger);
            json.WriteNumber("tolerance", row.Tolerance);
            json.WriteStartArray("findings");
            foreach (Finding finding in row.Findings)
            {
                json.WriteStartObject();
                json.WriteString("backend", finding.Backend);
                json.WriteReal("error", finding.Error);
                json.WriteBoolean("within", finding.IsWithin);
                json.WriteString("problem", finding.Problem);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    /// <summary>By backend, the name of the first row that does not agree; null where all do.</summary>
    private void WriteFirst(Utf8JsonWriter json, string name, IReadOnlyList<Row> rows)
    {
        json.WriteStartObject(name);
        for (int i = 0; i + 1 < Backends.Count; i++) json.WriteString(Backends[i + 1], rows.FirstOrDefault(row => !row.Findings[i].IsWithin)?.Name);
        json.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter json, TextFinding text)
    {
        json.WriteStartObject();
        json.WriteString("backend", text.Backend);
        json.WriteNumber("tokens", text.Tokens);
        json.WriteBoolean("identical", text.Problem is null && text.PartsAt is null);
        json.WriteString("problem", text.Problem);
        if (text.PartsAt is { } at)
        {
            json.WriteNumber("parts_at", at);
            json.WriteNumber("reference_token", text.ReferenceToken);
            json.WriteNumber("token", text.Token);
            json.WriteReal("reference_margin", text.ReferenceMargin);
            json.WriteReal("margin", text.Margin);
            json.WriteBoolean("fair", text.IsFair);
        }

        json.WriteEndObject();
    }

    private static string Number(double number) => number.ToString(number == 0 ? "0" : "0.#e+0", CultureInfo.InvariantCulture);
}
