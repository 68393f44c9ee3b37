using System.ComponentModel;
using Spectre.Console.Cli;
using Treeline.Cli.Cases;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

internal sealed class LogitsSettings : ModelSettings
{
    [CommandOption("--ids <IDS>")]
    [Description("Token ids: 1,2,3, or a file of numbers, or a safetensors file with ids; - is standard input")]
    public string? Ids { get; init; }

    [CommandOption("--out <FILE>")]
    [Description("The safetensors file to write: logits [[tokens, vocabulary]]")]
    public string? Out { get; init; }

    [CommandOption("--stepwise")]
    [Description("Feed one token at a time; else all in one pass")]
    public bool Stepwise { get; init; }
}

/// <summary>A model's logits after each of some tokens.</summary>
internal sealed class LogitsCommand : ToolCommand<LogitsSettings>
{
    protected override int Run(LogitsSettings settings, Terminal terminal)
    {
        if (settings.Ids is null) throw ToolException.Usage("--ids: expected 1,2,3 or a file, got none");
        if (settings.Out is null) throw ToolException.Usage("--out: expected a file to write, got none");
        settings.Folder();
        OutputPlace place = OutputPlace.Claim(settings.Out);
        int[] ids = TokenIds.Read("--ids", settings.Ids, terminal);
        using KernelBackend backend = settings.OpenBackend(terminal);
        using CausalModel model = settings.Load(backend, terminal, tokenizer: false);
        TokenIds.RequireKnown("--ids", ids, model.VocabularySize);

        using Progress progress = terminal.Progress("tokens");
        float[] numbers = ModelPass.Logits(model, ids, settings.Stepwise, progress.Report, terminal.Cancellation);
        CaseTensor logits = CaseTensor.Of("logits", numbers, ids.Length, model.VocabularySize);
        place.Save(logits);
        if (settings.Json)
        {
            Json.Write(terminal.Out, json =>
            {
                json.WriteString("file", place.FullPath);
                json.WriteString("backend", backend.Name);
                json.WriteBoolean("stepwise", settings.Stepwise);
                json.WriteNumber("tokens", ids.Length);
                json.WriteArray("shape", logits.Shape);
            });
        }
        else
        {
            terminal.Out.WriteLine($"{place.FullPath}: {logits}");
        }

        return ExitCodes.Success;
    }
}
