using System.ComponentModel;
using System.Globalization;
using Spectre.Console.Cli;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

internal sealed class PerplexitySettings : ModelSettings
{
    [CommandOption("--file <FILE>")]
    [Description("The text; - is standard input")]
    public string? File { get; init; }
}

/// <summary>How well a model predicts a text.</summary>
internal sealed class PerplexityCommand : ToolCommand<PerplexitySettings>
{
    protected override int Run(PerplexitySettings settings, Terminal terminal)
    {
        if (settings.File is null) throw ToolException.Usage("--file: expected a text file or -, got none");
        string folder = settings.Folder();
        string text = TextSource.File(settings.File, terminal);
        using KernelBackend backend = settings.OpenBackend(terminal);
        using CausalModel model = settings.Load(backend, terminal);
        TextTokenizer tokenizer = model.Tokenizer ?? throw TokenizeCommand.NoTokenizer(folder);
        int[] tokens = tokenizer.Encode(text);
        if (tokens.Length < 2) throw ToolException.Input($"{settings.File}: expected a text of at least two tokens, got {tokens.Length}");
        TokenIds.RequireKnown("--file", tokens, model.VocabularySize);

        PerplexityResult result;
        using (Progress progress = terminal.Progress("tokens"))
            result = Perplexity.Compute(model, tokens, progress: progress.Of(tokens.Length), cancellation: terminal.Cancellation);
        // A damaged model is no answer: NaN in, NaN out.
        if (!double.IsFinite(result.Nats)) throw new NotFiniteNumberException($"{folder}: the model gives logits that are no numbers");
        if (settings.Json)
        {
            Json.Write(terminal.Out, json =>
            {
                json.WriteReal("perplexity", result.Value);
                json.WriteReal("nats_per_token", result.Nats / result.Tokens);
                json.WriteNumber("tokens", result.Tokens);
                json.WriteNumber("windows", result.Windows);
                json.WriteString("backend", backend.Name);
            });
        }
        else
        {
            terminal.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"perplexity {result.Value:0.####} over {result.Tokens} tokens ({result.Nats / result.Tokens:0.####} nats a token{(result.Windows > 1 ? $", {result.Windows} windows" : "")})"));
        }

        return ExitCodes.Success;
    }
}
