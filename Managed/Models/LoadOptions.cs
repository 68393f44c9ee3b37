using Microsoft.Extensions.Logging;
using Treeline.Kernels;

namespace Treeline;

/// <summary>How <see cref="CausalModel.Load"/> reads a checkpoint.</summary>
public sealed record LoadOptions
{
    /// <summary>True: a tensor that the model does not know is refused. False: it is reported, see <see cref="CausalModel.UnusedTensors"/>.</summary>
    public bool Strict { get; init; }

    /// <summary>How weight matrices are packed; null: as wide as each one is stored (float64 as float32).</summary>
    /// <remarks>
    /// <see cref="Kernels.WeightForm.InPlace"/> uses the mapped files where they lie, which then stay open as long as the model lives;
    /// matrices that are stored transposed (GPT-2's) cannot be used so and are packed as wide as they are stored.
    /// Tables of embeddings, norms and biases are never narrowed; a head that shares its weights with the embedding is a matrix of its own and is.
    /// </remarks>
    public WeightForm? WeightForm { get; init; }

    /// <summary>False: the tokenizer's files are not looked at and <see cref="CausalModel.Tokenizer"/> is null, for callers whose texts are tokens already.</summary>
    public bool Tokenizer { get; init; } = true;

    /// <summary>Hears of tensors that the model does not know; null: nobody does.</summary>
    public ILogger? Logger { get; init; }
}
