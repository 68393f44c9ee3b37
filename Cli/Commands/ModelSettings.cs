using System.ComponentModel;
using Spectre.Console.Cli;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

/// <summary>Options of every verb that runs a model.</summary>
internal class ModelSettings : BackendSettings
{
    [CommandOption("--model <DIR>")]
    [Description("The model's folder: config.json, weights, tokenizer, as on the Hugging Face hub")]
    public string? Model { get; init; }

    [CommandOption("--strict")]
    [Description("Refuse a checkpoint with tensors that the model does not know; else they are reported")]
    public bool Strict { get; init; }

    /// <summary>The model's folder.</summary>
    /// <exception cref="ToolException">None was given, or there is none.</exception>
    public string Folder() => RequireFolder("--model", Model);

    /// <summary>Loads the model, with its tokenizer where texts come in or go out.</summary>
    public CausalModel Load(KernelBackend backend, Terminal terminal, bool tokenizer = true) =>
        CausalModel.Load(Folder(), backend, new LoadOptions { Strict = Strict, Tokenizer = tokenizer, Logger = new StderrLogger(terminal) });

    internal static string RequireFolder(string option, string? path)
    {
        if (path is null) throw ToolException.Usage($"{option}: expected a model's folder, got none");
        return Directory.Exists(path) ? path : throw ToolException.Input($"{path}: no such model folder");
    }
}
