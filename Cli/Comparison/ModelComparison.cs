using System.Globalization;

namespace Treeline.Cli.Comparison;

/// <summary>A model on every backend, from the same tokens: layer by layer, the logits, the text.</summary>
/// <param name="Folder">The model's folder.</param>
/// <param name="Ids">The tokens that were fed.</param>
/// <param name="Tokenizer">For showing tokens; null where the model has none.</param>
/// <param name="Rows">The layers, then the logits.</param>
/// <param name="Texts">One for each backend but the reference.</param>
internal sealed record ModelComparison(string Folder, int[] Ids, TextTokenizer? Tokenizer, IReadOnlyList<Row> Rows, IReadOnlyList<TextFinding> Texts)
{
    /// <summary>Largest error of hidden states and logits in float32 (docs/tolerances.md).</summary>
    public const double Tolerance = 2e-4;

    /// <summary>Compares; the first run is the reference's, which has succeeded.</summary>
    public static ModelComparison Of(string folder, int[] ids, TextTokenizer? tokenizer, IReadOnlyList<Attempt<ModelRun>> runs, double tolerance)
    {
        List<Row> rows = [.. Enumerable.Range(0, runs[0].Value!.Layers.Length).Select(layer => Compare(string.Create(CultureInfo.InvariantCulture, $"layer {layer}"), run => run.Layers[layer]))];
        rows.Add(Compare("logits", run => run.Logits));
        return new ModelComparison(folder, ids, tokenizer, rows, [.. runs.Skip(1).Select(run => TextFinding.Of(runs[0].Value!, run))]);

        Row Compare(string name, Func<ModelRun, float[]> part) => new(name, name, IsInteger: false, tolerance,
            [.. runs.Skip(1).Select(run => run.Against(runs[0], (want, got) => Measure.RelativeError(part(want), part(got)), tolerance))]);
    }
}
