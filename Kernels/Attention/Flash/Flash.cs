namespace Treeline.Kernels;

/// <summary>Grouped linear attention with a masked depthwise convolution, exact on trees and across group boundaries.</summary>
/// <remarks>
/// With <c>q̂ = q/‖q‖</c>, <c>k̂ = k/‖k‖</c> (0 for a zero vector), <c>g(p) = ⌊p/G⌋</c>, over the prefix and i's path:
/// <c>local_i = Σ_{g(j) = g(i)} a(q̂_i·k̂_j) v_j</c>, <c>global_i = Σ_{g(j) &lt; g(i)} (q̂_i·k̂_j) v_j</c>,
/// <c>conv_i = Σ_t taps[t] · v at t tokens up the path</c>, <c>out_i = norm(local_i + α global_i) + conv_i</c>.
/// Sources: Hua et al. 2022 (FLASH), You et al. 2024 (arXiv:2406.07368). State: S = Σ k̂ vᵀ over completed groups, the current group's k̂ and v, the values before it.
/// </remarks>
public sealed class FlashAttention : Attention
{
    /// <inheritdoc/>
    public override string Name => "flash";

    /// <inheritdoc/>
    public override bool IsValid(AttentionSpec spec, out string why)
    {
        ArgumentNullException.ThrowIfNull(spec);
        if (!HasValidShape(spec, out why)) return false;
        why = spec switch
        {
            { GroupSize: 0 } => "GroupSize: grouped attention has groups, got 0",
            { Local: not (LocalKind.None or LocalKind.Relu2 or LocalKind.Yoso8) } => $"Local: {spec.Local} is unknown to grouped attention",
            { Norm: not (OutputNorm.None or OutputNorm.Global or OutputNorm.Together or OutputNorm.Castling) } => $"Norm: {spec.Norm} is unknown to grouped attention",
            { Local: LocalKind.None, Global: false, ConvTaps: 0 } => "Local, Global and ConvTaps: nothing to compute",
            { HasAlpha: true, Global: false } => "HasAlpha: there is no global part to scale",
            { ScoreScale: not null and not 1 } => $"ScoreScale: grouped attention normalises query and key instead, got {spec.ScoreScale}",
            _ => "",
        };
        return why.Length == 0;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<LayerWeight> Weights(AttentionSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        List<LayerWeight> weights = [];
        if (spec.HasAlpha) weights.Add(new LayerWeight("alpha", [1]));
        if (spec.ConvTaps > 0) weights.Add(new LayerWeight("taps", [spec.QueryHeads, spec.ConvTaps]));
        return weights;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<StateField> Fields(AttentionSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        List<StateField> fields = [];
        if (spec.Global) fields.Add(new StateField("S", FieldRows.Fixed, spec.KeyValueHeads, spec.HeadDim, spec.ValueDim));
        if (spec.Global || spec.Local != LocalKind.None) fields.Add(new StateField("key", FieldRows.Tail, spec.KeyValueHeads, 0, spec.HeadDim));
        fields.Add(new StateField("value", FieldRows.Tail, spec.KeyValueHeads, 0, spec.ValueDim));
        if (spec.ConvTaps > 1) fields.Add(new StateField("window", FieldRows.Window, spec.KeyValueHeads, spec.ConvTaps - 1, spec.ValueDim));
        return fields;
    }

    internal override LayerState CreateLayer(KernelBackend backend, AttentionState owner, int index) => backend.CreateFlashLayer(owner, index);

    internal override void Attend(KernelBackend backend, AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        backend.FlashAttend(layer, state, step, inputs, output);
}

public abstract partial class KernelBackend
{
    /// <summary>Creates a state's part for one layer of grouped linear attention; a backend that keeps its state otherwise does not need it.</summary>
    /// <param name="owner">The whole state, being created.</param>
    /// <param name="index">Which layer.</param>
    protected internal virtual LayerState CreateFlashLayer(AttentionState owner, int index) => throw Unsupported(nameof(FlashAttention));

    internal void FlashAttend(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        FlashAttendCore(layer, state, step, inputs, output);

    /// <summary>Grouped linear attention of one layer for every entry of a step; the arguments have been checked.</summary>
    /// <param name="layer">Spec and weights.</param>
    /// <param name="state">The layer's state: moved for entries that move, its pending rows written for the others.</param>
    /// <param name="step">Entries, topologies, positions.</param>
    /// <param name="inputs">Query, key and value of the new tokens.</param>
    /// <param name="output">Receives <c>[tokens, queryHeads, valueDim]</c>.</param>
    protected virtual void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output) =>
        throw Unsupported(nameof(FlashAttention));
}
