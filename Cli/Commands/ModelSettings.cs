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

    [CommandOption("--weights <FORM>")]
    [Description("How weight matrices are held in memory: stored (as wide as in the files), float32, bfloat16, float16, int8, int4, in-place")]
    [DefaultValue("stored")]
    public string Weights { get; init; } = "stored";

    /// <summary>The model's folder.</summary>
    /// <exception cref="ToolException">None was given, or there is none.</exception>
    public string Folder() => RequireFolder("--model", Model);

    /// <summary>Loads the model, with its tokenizer where texts come in or go out.</summary>
    public CausalModel Load(KernelBackend backend, Terminal terminal, bool tokenizer = true) =>
        CausalModel.Load(Folder(), backend, new LoadOptions { Strict = Strict, WeightForm = Form(Weights), Tokenizer = tokenizer, Logger = new StderrLogger(terminal) });

    /// <summary>What <c>--weights</c> says, null for as wide as they are stored.</summary>
    /// <exception cref="ToolException">It is none of the forms.</exception>
    internal static WeightForm? Form(string word) => Parse.Word<WeightForm?>("--weights", word, ("stored", null), ("float32", WeightForm.Float32), ("bfloat16", WeightForm.BFloat16),
        ("float16", WeightForm.Float16), ("int8", WeightForm.Int8), ("int4", WeightForm.Int4), ("in-place", WeightForm.InPlace));

    internal static string RequireFolder(string option, string? path)
    {
        if (path is null) throw ToolException.Usage($"{option}: expected a model's folder, got none");
        return Directory.Exists(path) ? path : throw ToolException.Input($"{path}: no such model folder");
    }
}
