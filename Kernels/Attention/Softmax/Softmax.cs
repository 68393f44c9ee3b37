namespace Treeline.Kernels;

/// <summary>Exact softmax attention over a key/value cache, on paths and trees: the baseline everything is compared with.</summary>
/// <remarks><c>out_i = Σ_j softmax_j(scale · q_i·k_j) v_j</c> over the prefix and i's path; scale = 1/√headDim unless the spec says otherwise. The state grows.</remarks>
public sealed class SoftmaxAttention : Attention
{
    /// <inheritdoc/>
    public override string Name => "softmax";

    /// <inheritdoc/>
    public override bool IsValid(AttentionSpec spec, out string why)
    {
        ArgumentNullException.ThrowIfNull(spec);
        if (!HasValidShape(spec, out why)) return false;
        why = spec switch
        {
            { GroupSize: not 0 } => $"GroupSize: softmax has no groups, expected 0, got {spec.GroupSize}",
            { Local: not LocalKind.None } => $"Local: softmax has no local part, got {spec.Local}",
            { Global: true } or { HasAlpha: true } => "Global: softmax has no global part",
            { Norm: not OutputNorm.None } => $"Norm: softmax normalises itself, got {spec.Norm}",
            { ConvTaps: not 0 } => $"ConvTaps: softmax with a convolution is not built, got {spec.ConvTaps}",
            _ => "",
        };
        return why.Length == 0;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<LayerWeight> Weights(AttentionSpec spec) => [];

    /// <inheritdoc/>
    public override IReadOnlyList<StateField> Fields(AttentionSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return
        [
            new StateField("key", FieldRows.Past, spec.KeyValueHeads, 0, spec.HeadDim),
            new StateField("value", FieldRows.Past, spec.KeyValueHeads, 0, spec.ValueDim),
        ];
    }

    internal override LayerState CreateLayer(KernelBackend backend, AttentionState owner, int index) => backend.CreateSoftmaxLayer(owner, index);

    internal override void Attend(KernelBackend backend, AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        backend.SoftmaxAttend(layer, state, step, inputs, output);
}

public abstract partial class KernelBackend
{
    /// <summary>Creates a state's part for one layer of softmax attention; a backend that keeps its state otherwise does not need it.</summary>
    /// <param name="owner">The whole state, being created.</param>
    /// <param name="index">Which layer.</param>
    protected internal virtual LayerState CreateSoftmaxLayer(AttentionState owner, int index) => throw Unsupported(nameof(SoftmaxAttention));

    internal void SoftmaxAttend(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        SoftmaxAttendCore(layer, state, step, inputs, output);

    /// <summary>Softmax attention of one layer for every entry of a step; the arguments have been checked.</summary>
    /// <param name="layer">Spec and weights.</param>
    /// <param name="state">The layer's state.</param>
    /// <param name="step">Entries, topologies, positions.</param>
    /// <param name="inputs">Query, key and value of the new tokens.</param>
    /// <param name="output">Receives <c>[tokens, queryHeads, valueDim]</c>.</param>
    protected virtual void SoftmaxAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        throw Unsupported(nameof(SoftmaxAttention));
}
