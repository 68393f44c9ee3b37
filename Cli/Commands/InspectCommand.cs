using System.ComponentModel;
using System.Globalization;
using System.Text.Json;
using Spectre.Console.Cli;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

internal sealed class InspectSettings : AnswerSettings
{
    [CommandArgument(0, "<MODEL>")]
    [Description("A model's folder, or one file of tensors: safetensors, a PyTorch file, an index of shards")]
    public string Model { get; init; } = "";
}

/// <summary>What a checkpoint holds; reads headers, loads no weights.</summary>
internal sealed class InspectCommand : ToolCommand<InspectSettings>
{
    protected override int Run(InspectSettings settings, Terminal terminal)
    {
        using var model = InspectedModel.Open(settings.Model);
        if (settings.Json) Json.Write(terminal.Out, json => Write(json, model));
        else Print(terminal.Out, model);
        return ExitCodes.Success;
    }

    private static void Print(TextWriter output, InspectedModel model)
    {
        List<string[]> lines = [["checkpoint", model.Checkpoint.Path]];
        if (model.Config is { } config)
        {
            lines.Add(["model", $"{config.ModelType}, {config.Layers} layers, hidden {config.HiddenSize}, feed-forward {config.FeedForwardSize}, vocabulary {config.VocabularySize}"]);
            lines.Add(["heads", $"{config.QueryHeads} of {config.HeadDim}, key/value heads {config.KeyValueHeads}"]);
            lines.Add(["positions", $"{config.MaxPositions}{(config.Rotary is { } rotary ? $", rotary base {Text(rotary.Base)}{(rotary.Scaling == RotaryScaling.None ? "" : $", scaling {rotary.Scaling} by {Text(rotary.Factor)}")}" : "")}"]);
            lines.Add(["output", config.TiedEmbeddings ? "tied to the embedding" : "a matrix of its own"]);
            lines.Add(["stop tokens", config.StopTokens.Count == 0 ? "none" : string.Join(", ", config.StopTokens)]);
            lines.Add(["attention", InspectedModel.Describe(config)]);
            StateSize state = model.State!.Value;
            lines.Add(["state", state.PerToken == 0 ? $"{Bytes(state.Fixed)} a sequence, at any length"
                : $"{Bytes(state.PerToken)} a token, {Bytes(state.At(config.MaxPositions))} a sequence of {config.MaxPositions} tokens"]);
        }
        else if (model.WhyNoConfig is { } why)
        {
            lines.Add(["model", why]);
        }

        if (model.IsFolder)
        {
            lines.Add(["Medusa heads", model.Heads is { } heads ? $"{model.MedusaHeads}, {Summary(heads)}" : "none"]);
            lines.Add(["tokenizer", model.Tokenizer is { } tokenizer ? $"{tokenizer.VocabularySize} tokens" : model.WhyNoTokenizer ?? "none"]);
        }

        foreach ((string key, string value) in model.Checkpoint.Metadata) lines.Add([$"metadata {key}", Terminal.OneLine(value)]);
        lines.Add(["stored", Summary(model.Checkpoint)]);
        Columns.Write(output, lines);
        Columns.Write(output, [.. model.Tensors.Select(tensor => new[] { $"  {tensor.Name}", tensor.StoredType, $"[{string.Join(", ", tensor.Shape.ToArray())}]", Bytes(tensor.ByteLength) })]);
    }

    private static void Write(Utf8JsonWriter json, InspectedModel model)
    {
        json.WriteString("checkpoint", model.Checkpoint.Path);
        if (model.Config is { } config) Write(json, config, model.State!.Value);
        else json.WriteNull("config");
        json.WriteString("why_no_config", model.WhyNoConfig);
        json.WriteNumber("medusa_heads", model.MedusaHeads);
        if (model.Tokenizer is { } tokenizer) json.WriteNumber("tokenizer_vocabulary", tokenizer.VocabularySize);
        else json.WriteNull("tokenizer_vocabulary");
        json.WriteString("why_no_tokenizer", model.WhyNoTokenizer);
        json.WriteStartObject("metadata");
        foreach ((string key, string value) in model.Checkpoint.Metadata) json.WriteString(key, value);
        json.WriteEndObject();
        json.WriteNumber("parameters", InspectedModel.Numbers(model.Checkpoint));
        json.WriteNumber("bytes", model.Checkpoint.Tensors.Sum(tensor => tensor.ByteLength));
        json.WriteStartArray("tensors");
        foreach (CheckpointTensor tensor in model.Tensors)
        {
            json.WriteStartObject();
            json.WriteString("name", tensor.Name);
            json.WriteString("type", tensor.StoredType);
            json.WriteArray("shape", tensor.Shape.ToArray());
            json.WriteNumber("bytes", tensor.ByteLength);
            json.WriteString("file", tensor.File);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void Write(Utf8JsonWriter json, ModelConfig config, StateSize state)
    {
        json.WriteStartObject("config");
        json.WriteString("model_type", config.ModelType);
        json.WriteNumber("layers", config.Layers);
        json.WriteNumber("hidden", config.HiddenSize);
        json.WriteNumber("feed_forward", config.FeedForwardSize);
        json.WriteNumber("vocabulary", config.VocabularySize);
        json.WriteNumber("query_heads", config.QueryHeads);
        json.WriteNumber("key_value_heads", config.KeyValueHeads);
        json.WriteNumber("head_dim", config.HeadDim);
        json.WriteNumber("positions", config.MaxPositions);
        json.WriteBoolean("tied_embeddings", config.TiedEmbeddings);
        json.WriteArray("stop_tokens", config.StopTokens);
        json.WriteEndObject();
        json.WriteStartObject("attention");
        json.WriteString("kind", InspectedModel.Kind(config));
        json.WriteString("description", InspectedModel.Describe(config));
        json.WriteNumber("group_size", config.Linear?.GroupSize ?? 0);
        json.WriteNumber("conv_kernel_size", config.Linear?.ConvKernelSize ?? 0);
        json.WriteEndObject();
        json.WriteStartObject("state");
        json.WriteBoolean("grows", state.PerToken > 0);
        json.WriteNumber("fixed_bytes", state.Fixed);
        json.WriteNumber("bytes_per_token", state.PerToken);
        json.WriteEndObject();
    }

    private static string Summary(Checkpoint checkpoint) =>
        $"{checkpoint.Tensors.Count} tensors, {InspectedModel.Numbers(checkpoint)} numbers, {Bytes(checkpoint.Tensors.Sum(tensor => tensor.ByteLength))}";

    private static string Text(double number) => number.ToString("0.####", CultureInfo.InvariantCulture);

    private static string Bytes(long bytes) => bytes switch
    {
        < 1000 => $"{bytes} bytes",
        < 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e3:0.0} kB"),
        < 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.0} GB"),
    };
}
