using System.Text;
using System.Text.Json;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

/// <summary>Continues a text: streams it as it comes.</summary>
internal sealed class GenerateCommand : ToolCommand<GenerateSettings>
{
    protected override int Run(GenerateSettings settings, Terminal terminal)
    {
        if (settings.Prompt is null) throw ToolException.Usage("--prompt: expected a text or -, got none");
        string folder = settings.Folder();
        GenerationOptions options = settings.Options(terminal);
        string prompt = TextSource.Value(settings.Prompt, terminal);
        if (prompt.Length == 0) throw ToolException.Input("--prompt: expected a text, got an empty one");
        using KernelBackend backend = settings.OpenBackend(terminal);
        using CausalModel model = settings.Load(backend, terminal);
        if (model.Tokenizer is null) throw TokenizeCommand.NoTokenizer(folder);
        if (options.Drafter == Drafter.Medusa && model.Medusa is null)
            throw ToolException.Input($"--drafter: expected none or lookup, {folder} has no Medusa heads (medusa_lm_head.safetensors or .pt), got medusa");

        int[] tokens = model.Tokenizer.Encode(prompt);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions
        {
            Slots = 1,
            Capacity = (int)Math.Min(model.MaxPositions, (long)tokens.Length + options.MaxTokens),
        });
        using Sequence sequence = batch.Add(tokens, options);
        TextWriter stream = settings.Json ? TextWriter.Null : terminal.Out;
        var text = new StringBuilder();
        try
        {
            Read(batch, sequence, terminal);
            do text.Append(Take(sequence, stream));
            while (batch.Step(terminal.Cancellation));
        }
        catch (OperationCanceledException)
        {
            sequence.Cancel();                              // what has been said so far stays said
        }

        text.Append(Take(sequence, stream));
        bool isWhole = sequence.FinishReason is not (FinishReason.Cancelled or FinishReason.Failed);
        if (isWhole || text.Length > 0) stream.WriteLine();
        stream.Flush();
        if (sequence.Error is { } error) throw error;
        if (settings.Json) Json.Write(terminal.Out, json => Write(json, settings, backend, sequence, options, text.ToString(), batch.Statistics));
        else if (settings.Stats) StatisticsReport.Print(terminal.Error, batch.Statistics, Name(sequence.FinishReason));
        if (isWhole) return ExitCodes.Success;
        terminal.Fail("cancelled");
        return ExitCodes.Cancelled;
    }

    /// <summary>Steps up to the first generated token; a long prompt takes several.</summary>
    private static void Read(DecodingBatch batch, Sequence sequence, Terminal terminal)
    {
        using Progress progress = terminal.Progress("prompt");
        while (batch.Step(terminal.Cancellation) && sequence.Generated.IsEmpty) progress.Report(batch.Statistics.PromptTokens, sequence.PromptLength);
    }

    private static string Take(Sequence sequence, TextWriter stream)
    {
        string piece = sequence.TakeText();
        if (piece.Length == 0) return piece;
        stream.Write(piece);
        stream.Flush();
        return piece;
    }

    private static string Name(FinishReason reason) => reason switch
    {
        FinishReason.StopToken => "stop_token",
        FinishReason.StopString => "stop_string",
        FinishReason.MaxTokens => "max_tokens",
        FinishReason.Capacity => "capacity",
        _ => "cancelled",
    };

    private static void Write(Utf8JsonWriter json, GenerateSettings settings, KernelBackend backend, Sequence sequence, GenerationOptions options, string text, DecodingStatistics statistics)
    {
        json.WriteString("text", text);
        json.WriteArray("tokens", sequence.Generated.ToArray());
        json.WriteArray("prompt_tokens", sequence.Tokens[..sequence.PromptLength].ToArray());
        json.WriteString("finish_reason", Name(sequence.FinishReason));
        json.WriteString("backend", backend.Name);
        json.WriteString("drafter", settings.Drafter);
        json.WriteString("tree", options.TreePolicy.ToString());
        json.WriteString("acceptance", settings.Acceptance ?? (options.Temperature == 0 ? "greedy" : "lossless"));
        json.WriteNumber("seed", options.Seed);
        if (settings.Stats) StatisticsReport.Write(json, statistics);
    }
}
