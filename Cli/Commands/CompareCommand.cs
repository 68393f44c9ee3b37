using System.ComponentModel;
using Spectre.Console.Cli;
using Treeline.Cli.Comparison;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

internal sealed class CompareSettings : ComputeSettings
{
    [CommandOption("--backends <NAMES>")]
    [Description("Two or more names with commas between them, such as cpu,opencl:0; the first is the reference")]
    public string? BackendNames { get; init; }

    [CommandOption("--model <DIR>")]
    [Description("A model's folder: compare its layers, logits and text too")]
    public string? Model { get; init; }

    [CommandOption("--prompt <TEXT>")]
    [Description("The text that the model reads and continues; - reads it from standard input")]
    [TypeConverter(typeof(VerbatimText))]
    public string? Prompt { get; init; }

    [CommandOption("--ids <IDS>")]
    [Description("The same as token ids: 1,2,3, or a file of numbers, or a safetensors file with ids")]
    public string? Ids { get; init; }

    [CommandOption("--weights <FORM>")]
    [Description("How the model's weight matrices are held in memory: stored, float32, bfloat16, float16, int8, int4, in-place")]
    [DefaultValue("stored")]
    public string Weights { get; init; } = "stored";

    [CommandOption("--tokens <N>")]
    [Description("Length of the greedy text")]
    [DefaultValue("64")]
    public string? Tokens { get; init; }

    [CommandOption("--tolerance <X>")]
    [Description("Largest error of real numbers; default: 2e-5 for an op, 2e-4 for layers and logits")]
    public string? Tolerance { get; init; }
}

/// <summary>The same computations on several backends in one process, and where they part.</summary>
internal sealed class CompareCommand : ToolCommand<CompareSettings>
{
    // Long enough to pass the end of a group.
    private const string Opening =
        "A linear attention keeps the past in a state of constant size instead of a cache that grows with every token. Speculative decoding checks a whole tree of guessed tokens "
        + "in one forward pass, and what it accepts is the very text that decoding one token at a time would have written.\n";
    private const int OpeningTokens = 100;

    protected override int Run(CompareSettings settings, Terminal terminal)
    {
        double? tolerance = settings.Tolerance is null ? null : Parse.Real("--tolerance", settings.Tolerance, 0, 0);
        int count = Parse.Whole("--tokens", settings.Tokens, 64, 1);
        WeightForm? form = ModelSettings.Form(settings.Weights);
        BackendOptions options = settings.BackendOptions();
        if (settings.Model is null && (settings.Prompt ?? settings.Ids) is not null) throw ToolException.Usage($"{(settings.Prompt is null ? "--ids" : "--prompt")}: expected a --model that reads it, got none");
        if (settings.Model is null && form is not null) throw ToolException.Usage("--weights: expected a --model whose weights they are, got none");
        if (settings.Prompt is not null && settings.Ids is not null) throw ToolException.Usage("expected one of --prompt and --ids, got both");
        if (settings.Model is not null) ModelSettings.RequireFolder("--model", settings.Model);
        string[] names = Names(settings.BackendNames, options, terminal);

        List<(string Name, KernelBackend Backend)> backends = [];
        try
        {
            foreach (string name in names) backends.Add((name, Backends.Open(name, options)));
            ModelComparison? model = settings.Model is null ? null : Compare(settings.Model, settings, count, backends, form, tolerance, terminal);
            using Progress progress = terminal.Progress("ops");
            var report = new ComparisonReport(names, OpComparison.Run(backends, tolerance, progress, terminal.Cancellation), model);
            progress.Dispose();
            if (settings.Json) Json.Write(terminal.Out, report.Write);
            else report.Print(terminal.Out);
            return report.ExitCode;
        }
        finally
        {
            foreach ((_, KernelBackend backend) in backends) backend.Dispose();
        }
    }

    private static string[] Names(string? list, BackendOptions options, Terminal terminal)
    {
        string[] names = [.. (list ?? "").Split(',', StringSplitOptions.TrimEntries).Select(name => name == "auto" ? BackendChoice.Auto(probe: false, options, terminal) : name)];
        if (names.Length < 2 || names.Contains("") || names.Distinct().Count() < names.Length)
            throw ToolException.Usage($"--backends: expected two or more different names such as cpu,opencl:0, got {(list is null ? "none" : string.Join(',', names))}");
        return names;
    }

    /// <summary>One model after the other: only one is in memory at a time.</summary>
    private static ModelComparison Compare(string folder, CompareSettings settings, int count, List<(string Name, KernelBackend Backend)> backends, WeightForm? form, double? tolerance, Terminal terminal)
    {
        TextTokenizer? tokenizer = TextTokenizer.Load(folder);
        int[] ids = ReadIds(settings, folder, tokenizer, terminal);
        using Progress progress = terminal.Progress("models");
        List<Attempt<ModelRun>> runs = [];
        foreach ((string name, KernelBackend backend) in backends)
        {
            // What is wrong with the folder is wrong for all of them: the reference's refusal ends the command.
            bool isReference = runs.Count == 0;
            var load = new LoadOptions { WeightForm = form, Tokenizer = false, Logger = isReference ? new StderrLogger(terminal) : null };
            if (isReference) runs.Add(new Attempt<ModelRun>(name, Run(), null));
            else runs.Add(Attempt<ModelRun>.Of(name, Run));
            progress.Report(runs.Count, backends.Count);

            ModelRun Run()
            {
                using CausalModel model = CausalModel.Load(folder, backend, load);
                TokenIds.RequireKnown(settings.Ids is null ? "--prompt" : "--ids", ids, model.VocabularySize);
                return ModelRun.Of(model, ids, count, terminal.Cancellation);
            }
        }

        return ModelComparison.Of(folder, ids, tokenizer, runs, tolerance ?? ModelComparison.Tolerance);
    }

    private static int[] ReadIds(CompareSettings settings, string folder, TextTokenizer? tokenizer, Terminal terminal)
    {
        if (settings.Ids is not null) return TokenIds.Read("--ids", settings.Ids, terminal);
        if (tokenizer is null && settings.Prompt is not null) throw TokenizeCommand.NoTokenizer(folder);
        if (tokenizer is null) return NumbersFor(ModelConfig.Load(folder));
        string prompt = TextSource.Value(settings.Prompt ?? Opening, terminal);
        return prompt.Length > 0 ? tokenizer.Encode(prompt) : throw ToolException.Input("--prompt: expected a text, got an empty one");
    }

    /// <summary>Something to read where there is no tokenizer.</summary>
    private static int[] NumbersFor(ModelConfig config) => [.. Enumerable.Range(1, Math.Max(1, Math.Min(OpeningTokens, config.MaxPositions / 2))).Select(i => i * 7 % config.VocabularySize)];
}
