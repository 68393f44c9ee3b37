using System.ComponentModel;
using System.Globalization;
using System.Text.Json;
using Spectre.Console.Cli;
using Treeline.Cli.Cases;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

internal sealed class RunSettings : BackendSettings
{
    [CommandArgument(0, "<CASE>")]
    [Description("Recorded case files, or model folders with recorded.safetensors")]
    public string[] Cases { get; init; } = [];

    [CommandOption("--out <DIR>")]
    [Description("Write DIR/<name of the case>.safetensors with the computed tensors")]
    public string? Out { get; init; }

    [CommandOption("--tolerance <X>")]
    [Description("Largest error; default by backend and operation: oracle 2e-6, whole models 5e-5; others 2e-5, whole models 2e-4")]
    public string? Tolerance { get; init; }

    [CommandOption("--stepwise")]
    [Description("Feed causal attention and models one token at a time")]
    public bool Stepwise { get; init; }
}

/// <summary>Computes recorded cases and compares with what was recorded.</summary>
internal sealed class RunCommand : ToolCommand<RunSettings>
{
    private sealed record Result(string Path, string? Op, string? Kind, IReadOnlyList<CaseOutput> Outputs, string? File, string? Problem, int ExitCode);

    protected override int Run(RunSettings settings, Terminal terminal)
    {
        double? tolerance = settings.Tolerance is null ? null : Parse.Real("--tolerance", settings.Tolerance, 0, 0);
        if (settings.Cases.Contains("")) throw ToolException.Usage("CASE: expected a case file or a model folder, got an empty name");
        if (settings.Out is not null) RequireDistinctNames(settings.Cases);
        using KernelBackend backend = settings.OpenBackend(terminal);
        if (settings.Out is not null) OutputPlace.CreateFolder(settings.Out);
        List<Result> results = [];
        foreach (string path in settings.Cases)
        {
            Result result = RunCase(path, backend, settings, tolerance, terminal);
            results.Add(result);
            if (result.Problem is not null) terminal.Fail(result.Problem);
            if (!settings.Json) Print(result, terminal.Out);
            if (result.ExitCode == ExitCodes.Cancelled) break;
        }

        int code = results.Max(result => result.ExitCode);
        if (settings.Json) Json.Write(terminal.Out, json => Write(json, backend, settings.Stepwise, results, code));
        else if (results.Count > 1) Summarise(results, terminal.Out);
        return code;
    }

    private static Result RunCase(string path, KernelBackend backend, RunSettings settings, double? tolerance, Terminal terminal)
    {
        GoldenCase? golden = null;
        try
        {
            golden = GoldenCase.Open(path);
            foreach (string warning in golden.Warnings) terminal.Warn(warning);
            OutputPlace? place = settings.Out is null ? null : PlaceOf(golden, settings.Out);
            using Progress progress = terminal.Progress(GoldenCase.NameOf(path));
            IReadOnlyList<CaseOutput> outputs = golden.Run(backend, new CaseOptions(settings.Stepwise, tolerance, progress.Report, new StderrLogger(terminal)), terminal.Cancellation);
            place?.Save(outputs.Select(output => output.Got));
            return new Result(path, golden.Op, golden.Kind, outputs, place?.FullPath, null, outputs.All(output => output.IsWithin) ? ExitCodes.Success : ExitCodes.Mismatch);
        }
        catch (Exception e)
        {
            string message = Program.MessageOf(e);
            return new Result(path, golden?.Op, golden?.Kind, [], null, message.Contains(path, StringComparison.Ordinal) ? message : $"{path}: {message}", ExitCodes.Of(e));
        }
        finally
        {
            golden?.Dispose();
        }
    }

    private static OutputPlace PlaceOf(GoldenCase golden, string folder)
    {
        string path = Path.Combine(folder, golden.FileName);
        if (Path.GetFullPath(path) == Path.GetFullPath(golden.Path))
            throw new ToolException(ExitCodes.Output, $"{path}: cannot be written: it is the case itself; give another --out");
        return OutputPlace.Claim(path);
    }

    private static void RequireDistinctNames(string[] cases)
    {
        foreach (IGrouping<string, string> same in cases.GroupBy(GoldenCase.NameOf))
        {
            if (same.Count() > 1)
                throw ToolException.Usage($"--out: {string.Join(" and ", same)} would both be written to {same.Key}.safetensors; run them apart");
        }
    }

    private static void Print(Result result, TextWriter output)
    {
        string name = GoldenCase.NameOf(result.Path);
        if (result.Problem is not null) output.WriteLine($"{name}: not run (exit code {result.ExitCode})");
        foreach (CaseOutput tensor in result.Outputs) output.WriteLine($"{name}: {Describe(tensor)}");
    }

    private static string Describe(CaseOutput output)
    {
        string verdict = (output.HasExpected, output.Problem) switch
        {
            (false, _) => "computed, nothing to compare with",
            (_, { } problem) => $"{problem}: DIFFERS",
            _ when !output.Got.Type.IsFloat() =>
                $"{(output.Error == 0 ? "equal" : $"{output.Error} differ: DIFFERS")}{(output.Compared is { } compared ? $" (first {compared} compared: then the margin is under 1e-3)" : "")}",
            _ => string.Create(CultureInfo.InvariantCulture, $"error {output.Error:0.###e+0}, tolerance {output.Tolerance:0.###e+0}: {(output.IsWithin ? "ok" : "PAST THE TOLERANCE")}"),
        };
        return $"{output.Got}: {verdict}";
    }

    private static void Summarise(List<Result> results, TextWriter output)
    {
        int Count(Func<Result, bool> which) => results.Count(which);
        output.WriteLine($"{results.Count} cases: {Count(result => result.ExitCode == ExitCodes.Success)} ok, " +
            $"{Count(result => result.ExitCode == ExitCodes.Mismatch)} past the tolerance, {Count(result => result.Problem is not null)} not run");
    }

    private static void Write(Utf8JsonWriter json, KernelBackend backend, bool stepwise, List<Result> results, int code)
    {
        json.WriteString("backend", backend.Name);
        json.WriteBoolean("stepwise", stepwise);
        json.WriteStartArray("cases");
        foreach (Result result in results)
        {
            json.WriteStartObject();
            json.WriteString("case", result.Path);
            json.WriteString("name", GoldenCase.NameOf(result.Path));
            json.WriteString("op", result.Op);
            json.WriteString("kind", result.Kind);
            json.WriteNumber("exit_code", result.ExitCode);
            json.WriteString("problem", result.Problem);
            json.WriteString("file", result.File);
            json.WriteStartArray("outputs");
            foreach (CaseOutput output in result.Outputs) Write(json, output);
            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteNumber("exit_code", code);
    }

    private static void Write(Utf8JsonWriter json, CaseOutput output)
    {
        json.WriteStartObject();
        json.WriteString("name", output.Got.Name);
        json.WriteString("type", output.Got.Type.ToString());
        json.WriteArray("shape", output.Got.Shape);
        json.WriteBoolean("compared", output.HasExpected);
        json.WriteReal("error", output.Error);
        if (output.HasExpected) json.WriteNumber("tolerance", output.Tolerance);
        else json.WriteNull("tolerance");
        if (output.Compared is { } compared) json.WriteNumber("elements_compared", compared);
        if (output.Problem is not null) json.WriteString("problem", output.Problem);
        if (output.HasExpected) json.WriteBoolean("within", output.IsWithin);
        else json.WriteNull("within");
        json.WriteEndObject();
    }
}
