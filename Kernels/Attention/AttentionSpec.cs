using System.Globalization;
using System.Text;

namespace Treeline.Kernels;

/// <summary>What a token sees of its own group, the quadratic part of grouped attention.</summary>
public enum LocalKind
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>Weight relu(q̂·k̂)². FLASH, Hua et al. 2022.</summary>
    Relu2,

    /// <summary>Weight (1 - acos(0.98 q̂·k̂)/π)⁸. YOSO's expectation, Zeng et al. 2021, as the reference's grouped form has it.</summary>
    Yoso8,
}

/// <summary>Which sum is divided by its norm in grouped attention, over the value channels of one head.</summary>
public enum OutputNorm
{
    /// <summary>None.</summary>
    None,

    /// <summary>The global term alone: <c>global /= ε + ‖global‖</c>.</summary>
    Global,

    /// <summary>Local and global together: <c>x /= ε + ‖x‖</c>.</summary>
    Together,

    /// <summary>Linear-angular attention: <c>x = v/2 + x/π</c>, then <c>x /= ‖x‖</c> (a zero vector stays zero). You et al. 2023 (Castling-ViT).</summary>
    Castling,
}

/// <summary>What one layer's attention computes; data only, weights are bound by <see cref="KernelBackend.Bind"/>.</summary>
/// <remarks>Formulas: docs/attentions; sources: You et al. 2024 (arXiv:2406.07368), Hua et al. 2022 (FLASH). Two equal specs compute the same.</remarks>
public sealed record AttentionSpec
{
    private const float DefaultNormEpsilon = 1e-5f;

    /// <summary>Name of the attention, one of <see cref="Attentions.All"/>: <c>softmax</c> or <c>flash</c> (grouped linear attention).</summary>
    public required string Attention { get; init; }

    /// <summary>Number of query heads, a multiple of <see cref="KeyValueHeads"/>.</summary>
    public required int QueryHeads { get; init; }

    /// <summary>Number of key/value heads; query head h reads key/value head h / (QueryHeads / KeyValueHeads).</summary>
    public required int KeyValueHeads { get; init; }

    /// <summary>Channels of a query and a key, per head.</summary>
    public required int HeadDim { get; init; }

    /// <summary>Channels of a value, per head.</summary>
    public required int ValueDim { get; init; }

    /// <summary>Tokens in a group; 0: no groups, the state then moves every 64 positions.</summary>
    public int GroupSize { get; init; }

    /// <summary>The quadratic part inside the current group.</summary>
    public LocalKind Local { get; init; }

    /// <summary>True where completed groups are seen, through the state.</summary>
    public bool Global { get; init; }

    /// <summary>True where the global term is scaled by a learned α (weight <c>alpha [1]</c>); else α = 1.</summary>
    public bool HasAlpha { get; init; }

    /// <summary>Taps of the masked depthwise convolution over the values (weight <c>taps [queryHeads, convTaps]</c>, tap 0 is the token itself); 0: none.</summary>
    public int ConvTaps { get; init; }

    /// <summary>Which sum is normalised.</summary>
    public OutputNorm Norm { get; init; }

    /// <summary>Added to the norm that <see cref="OutputNorm.Global"/> and <see cref="OutputNorm.Together"/> divide by.</summary>
    public float NormEpsilon { get; init; } = DefaultNormEpsilon;

    /// <summary>Factor on the scores q·k; null: the attention's own, 1/√headDim for softmax, 1 for grouped attention (whose query and key are normalised).</summary>
    public float? ScoreScale { get; init; }

    /// <summary>Positions between two moves of the state: the group size where there are groups, else 64.</summary>
    public int BlockLength => GroupSize > 0 ? GroupSize : 64;

    /// <summary>Query heads that share a key/value head.</summary>
    public int HeadsPerKeyValue => QueryHeads / KeyValueHeads;

    /// <summary>Softmax attention with a key/value cache, the baseline.</summary>
    /// <param name="queryHeads">Number of query heads.</param>
    /// <param name="keyValueHeads">Number of key/value heads.</param>
    /// <param name="headDim">Channels of query and key.</param>
    /// <param name="valueDim">Channels of value; 0: the same.</param>
    public static AttentionSpec Softmax(int queryHeads, int keyValueHeads, int headDim, int valueDim = 0) => new()
    {
        Attention = "softmax",
        QueryHeads = queryHeads,
        KeyValueHeads = keyValueHeads,
        HeadDim = headDim,
        ValueDim = valueDim == 0 ? headDim : valueDim,
    };

    /// <summary>FLASH-Local: relu² inside the group, nothing else.</summary>
    /// <inheritdoc cref="Augmented"/>
    public static AttentionSpec FlashLocal(int queryHeads, int keyValueHeads, int headDim, int groupSize, int valueDim = 0) =>
        Flash(queryHeads, keyValueHeads, headDim, groupSize, valueDim) with { Local = LocalKind.Relu2 };

    /// <summary>FLASH-Global: α · the completed groups, nothing else.</summary>
    /// <inheritdoc cref="Augmented"/>
    public static AttentionSpec FlashGlobal(int queryHeads, int keyValueHeads, int headDim, int groupSize, int valueDim = 0) =>
        Flash(queryHeads, keyValueHeads, headDim, groupSize, valueDim) with { Global = true, HasAlpha = true };

    /// <summary>Local + α · global.</summary>
    /// <inheritdoc cref="Augmented"/>
    public static AttentionSpec LocalGlobal(int queryHeads, int keyValueHeads, int headDim, int groupSize, int valueDim = 0) =>
        Flash(queryHeads, keyValueHeads, headDim, groupSize, valueDim) with { Local = LocalKind.Relu2, Global = true, HasAlpha = true };

    /// <summary>The paper's augmented linear attention: local + α · global + masked depthwise convolution.</summary>
    /// <param name="queryHeads">Number of query heads.</param>
    /// <param name="keyValueHeads">Number of key/value heads.</param>
    /// <param name="headDim">Channels of query and key.</param>
    /// <param name="groupSize">Tokens in a group.</param>
    /// <param name="convTaps">Taps of the convolution.</param>
    /// <param name="valueDim">Channels of value; 0: the same as headDim.</param>
    public static AttentionSpec Augmented(int queryHeads, int keyValueHeads, int headDim, int groupSize, int convTaps = 32, int valueDim = 0) =>
        LocalGlobal(queryHeads, keyValueHeads, headDim, groupSize, valueDim) with { ConvTaps = convTaps };

    // Snapshots know a spec by its text: the same in every culture, and silent about a property at its default, so that one added later leaves older snapshots readable.
    private bool PrintMembers(StringBuilder text)
    {
        CultureInfo invariant = CultureInfo.InvariantCulture;
        text.Append(invariant, $"{nameof(Attention)} = {Attention}, {nameof(QueryHeads)} = {QueryHeads}, {nameof(KeyValueHeads)} = {KeyValueHeads}, {nameof(HeadDim)} = {HeadDim}, {nameof(ValueDim)} = {ValueDim}");
        if (GroupSize != 0) text.Append(invariant, $", {nameof(GroupSize)} = {GroupSize}");
        if (Local != LocalKind.None) text.Append(invariant, $", {nameof(Local)} = {Local}");
        if (Global) text.Append(invariant, $", {nameof(Global)} = {Global}");
        if (HasAlpha) text.Append(invariant, $", {nameof(HasAlpha)} = {HasAlpha}");
        if (ConvTaps != 0) text.Append(invariant, $", {nameof(ConvTaps)} = {ConvTaps}");
        if (Norm != OutputNorm.None) text.Append(invariant, $", {nameof(Norm)} = {Norm}");
        if (NormEpsilon != DefaultNormEpsilon) text.Append(invariant, $", {nameof(NormEpsilon)} = {NormEpsilon:r}");
        if (ScoreScale is float scale) text.Append(invariant, $", {nameof(ScoreScale)} = {scale:r}");
        return true;
    }

    private static AttentionSpec Flash(int queryHeads, int keyValueHeads, int headDim, int groupSize, int valueDim) =>
        Softmax(queryHeads, keyValueHeads, headDim, valueDim) with { Attention = "flash", GroupSize = groupSize };
}
