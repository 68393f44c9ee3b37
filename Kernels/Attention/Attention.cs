namespace Treeline.Kernels;

/// <summary>How many rows a field of the state has.</summary>
public enum FieldRows
{
    /// <summary>Always <see cref="StateField.Height"/>: the state as of the last block boundary.</summary>
    Fixed,

    /// <summary>One per token since the last block boundary.</summary>
    Tail,

    /// <summary>Always <see cref="StateField.Height"/>: the rows just before the last block boundary, newest last, zero before the start.</summary>
    Window,

    /// <summary>One per committed token: it grows, as softmax's cache does.</summary>
    Past,
}

/// <summary>One named part of a slot's state, as snapshots carry it; backends may lay it out differently.</summary>
/// <param name="Name">Its name, unique in the layer.</param>
/// <param name="Rows">What its number of rows follows.</param>
/// <param name="Heads">Number of heads.</param>
/// <param name="Height">Rows where they are fixed; else 0.</param>
/// <param name="Width">Numbers in a row of one head.</param>
public sealed record StateField(string Name, FieldRows Rows, int Heads, int Height, int Width)
{
    /// <summary>Number of rows at a committed length.</summary>
    /// <param name="length">Committed tokens.</param>
    /// <param name="blockLength">The spec's block length.</param>
    public int RowsAt(int length, int blockLength) => Rows switch
    {
        FieldRows.Tail => length % blockLength,
        FieldRows.Past => length,
        _ => Height,
    };

    /// <summary>Shape at a committed length: <c>[heads, height, width]</c> where fixed, else <c>[rows, heads, width]</c>.</summary>
    /// <param name="length">Committed tokens.</param>
    /// <param name="blockLength">The spec's block length.</param>
    public int[] ShapeAt(int length, int blockLength) =>
        Rows == FieldRows.Fixed ? [Heads, Height, Width] : [RowsAt(length, blockLength), Heads, Width];
}

/// <summary>A tensor that a layer binds.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Shape">Its shape.</param>
public sealed record LayerWeight(string Name, IReadOnlyList<int> Shape);

/// <summary>One kind of attention: what a spec of it means, what its state holds, which op computes it.</summary>
public abstract class Attention
{
    /// <summary>The name that <see cref="AttentionSpec.Attention"/> gives.</summary>
    public abstract string Name { get; }

    /// <summary>True where a spec means something; else says which property does not.</summary>
    /// <param name="spec">The spec.</param>
    /// <param name="why">What is wrong, empty where nothing is.</param>
    public abstract bool IsValid(AttentionSpec spec, out string why);

    /// <summary>The tensors that a layer of this spec binds.</summary>
    /// <param name="spec">A valid spec.</param>
    public abstract IReadOnlyList<LayerWeight> Weights(AttentionSpec spec);

    /// <summary>The parts of a slot's state, in the order that snapshots carry them.</summary>
    /// <param name="spec">A valid spec.</param>
    public abstract IReadOnlyList<StateField> Fields(AttentionSpec spec);

    /// <summary>Asks a backend for one layer's part of a state.</summary>
    internal abstract LayerState CreateLayer(KernelBackend backend, AttentionState owner, int index);

    /// <summary>Calls the op; everything has been checked.</summary>
    internal abstract void Attend(KernelBackend backend, AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output);

    /// <summary>What every attention asks of a spec.</summary>
    private protected static bool HasValidShape(AttentionSpec spec, out string why)
    {
        why = spec switch
        {
            { QueryHeads: < 1 } => $"QueryHeads: expected 1 or more, got {spec.QueryHeads}",
            { KeyValueHeads: < 1 } => $"KeyValueHeads: expected 1 or more, got {spec.KeyValueHeads}",
            _ when spec.QueryHeads % spec.KeyValueHeads != 0 => $"QueryHeads: expected a multiple of KeyValueHeads {spec.KeyValueHeads}, got {spec.QueryHeads}",
            { HeadDim: < 1 } => $"HeadDim: expected 1 or more, got {spec.HeadDim}",
            { ValueDim: < 1 } => $"ValueDim: expected 1 or more, got {spec.ValueDim}",
            { GroupSize: < 0 } => $"GroupSize: expected 0 or more, got {spec.GroupSize}",
            _ when !(spec.NormEpsilon >= 0) || float.IsInfinity(spec.NormEpsilon) => $"NormEpsilon: expected 0 or more, got {spec.NormEpsilon}",
            _ when spec.ScoreScale is float scale && !float.IsFinite(scale) => $"ScoreScale: expected a finite number, got {scale}",
            { ConvTaps: < 0 } => $"ConvTaps: expected 0 or more, got {spec.ConvTaps}",
            _ => "",
        };
        return why.Length == 0;
    }
}

/// <summary>The attentions that exist.</summary>
public static class Attentions
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Attention> All { get; } = [new SoftmaxAttention(), new FlashAttention()];

    /// <summary>The attention of a name, null where there is none.</summary>
    /// <param name="name">Its name.</param>
    public static Attention? Find(string name)
    {
        foreach (Attention attention in All)
            if (attention.Name == name) return attention;
        return null;
    }
}

/// <summary>What a step brings to one layer.</summary>
/// <param name="Query">After rotary embedding, <c>[tokens, queryHeads, headDim]</c>.</param>
/// <param name="Key">After rotary embedding, before normalisation, <c>[tokens, keyValueHeads, headDim]</c>.</param>
/// <param name="Value"><c>[tokens, keyValueHeads, valueDim]</c>.</param>
public readonly record struct AttentionInputs(DeviceTensor Query, DeviceTensor Key, DeviceTensor Value);
