using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>What the metadata of a grouped case says is computed.</summary>
internal static class GroupedKinds
{
    // What a label means where the metadata leaves it out; α null: it has one that must be told.
    private static readonly Dictionary<string, (LocalKind Local, OutputNorm Norm, double? Alpha)> Known = new()
    {
        ["local"] = (LocalKind.Relu2, OutputNorm.None, 0),
        ["local_global"] = (LocalKind.Relu2, OutputNorm.None, 1),
        ["local_alpha_global"] = (LocalKind.Relu2, OutputNorm.None, null),
        ["local_conv"] = (LocalKind.Relu2, OutputNorm.None, 0),
        ["augmented"] = (LocalKind.Relu2, OutputNorm.None, null),
        ["norm_global"] = (LocalKind.Relu2, OutputNorm.Global, 1),
        ["norm_together"] = (LocalKind.Relu2, OutputNorm.Together, 1),
        ["castling"] = (LocalKind.Relu2, OutputNorm.Castling, 1),
        ["yoso_local"] = (LocalKind.Yoso8, OutputNorm.None, 0),
        ["yoso_augmented"] = (LocalKind.Yoso8, OutputNorm.None, null),
    };

    /// <summary>The spec, its α and its taps.</summary>
    /// <param name="file">The case.</param>
    /// <param name="prefix">Before the names of query, key and value, such as <c>prefix_</c>.</param>
    /// <exception cref="ToolException">The kind is not known, or something contradicts it.</exception>
    public static GroupedAttention Read(CaseFile file, string prefix = "")
    {
        string kind = file.Kind;
        int group = file.Whole("group_size", 64);
        if (group == 0) throw ToolException.Unsupported($"{file.Path}: kind {kind} without groups (group_size 0) is not supported yet");
        if (!Known.TryGetValue(kind, out (LocalKind Local, OutputNorm Norm, double? Alpha) known))
            throw ToolException.Unsupported($"{file.Path}: kind {kind} is unknown; expected one of {string.Join(", ", Known.Keys)}");
        if (group < 0) throw ToolException.Input($"{file.Path}: group_size: expected 1 or more, got {group}");
        if (file.Text("causal", "true") is var causal && causal != "true") throw ToolException.Unsupported($"{file.Path}: kind {kind} is causal, got causal {causal}");
        if (file.Text("layout", Layout) is var layout && layout != Layout) throw ToolException.Unsupported($"{file.Path}: layout {layout} is unknown, expected {Layout}");
        if (file.Find("mask") is not null) throw ToolException.Unsupported($"{file.Path}: kind {kind} takes no mask");

        int[] q = Shape(file, prefix + "q"), k = Shape(file, prefix + "k"), v = Shape(file, prefix + "v");
        if (k[1] != v[1]) throw ToolException.Input($"{file.Path}: {prefix}k has {k[1]} heads, {prefix}v has {v[1]}");
        double alpha = file.Real("alpha", known.Alpha);
        float[]? taps = ReadTaps(file, q[1]);
        var spec = AttentionSpec.Softmax(q[1], k[1], q[2], v[2]) with
        {
            Attention = "flash",
            GroupSize = group,
            Local = ParseLocal(file, known.Local),
            Norm = ParseNorm(file, known.Norm),
            Global = alpha != 0,
            HasAlpha = alpha is not (0 or 1),
            ConvTaps = taps is null ? 0 : taps.Length / q[1],
        };
        return new GroupedAttention(spec, (float)alpha, taps);
    }

    private const string Layout = "[tokens, heads, dim]";

    private static int[] Shape(CaseFile file, string name) => file.Require(name).Shape.ToArray() is [_, > 0, > 0] shape ? shape
        : throw ToolException.Input($"{file.Path}: {name}: expected [tokens, heads, dim], got {file.Require(name)}");

    private static LocalKind ParseLocal(CaseFile file, LocalKind fallback) => file.Text("local", "") switch
    {
        "" => fallback,
        "none" => LocalKind.None,
        "relu2" => LocalKind.Relu2,
        "yoso8" => LocalKind.Yoso8,
        var other => throw ToolException.Unsupported($"{file.Path}: local {other} is unknown; expected none, relu2, yoso8"),
    };

    private static OutputNorm ParseNorm(CaseFile file, OutputNorm fallback) => file.Text("norm", "") switch
    {
        "" => fallback,
        "none" => OutputNorm.None,
        "global" => OutputNorm.Global,
        "together" => OutputNorm.Together,
        "castling" => OutputNorm.Castling,
        var other => throw ToolException.Unsupported($"{file.Path}: norm {other} is unknown; expected none, global, together, castling"),
    };

    /// <summary>Taps <c>[heads, taps]</c>, tap 0 the token itself, of a centred kernel whose later half looks into the future and is masked.</summary>
    private static float[]? ReadTaps(CaseFile file, int heads)
    {
        CheckpointTensor? stored = file.Find("conv_weight");
        int kernel = file.Whole("conv_kernel_size", stored?.Shape.ToArray() is [_, _, var size, _] ? size : 0);
        if (kernel == 0) return null;
        if (stored is null) throw ToolException.Input($"{file.Path}: conv_weight is missing for conv_kernel_size {kernel}");
        if (kernel < 0 || kernel % 2 == 0 || !stored.Shape.SequenceEqual([heads, 1, kernel, 1]))
            throw ToolException.Input($"{file.Path}: conv_weight: expected [{heads}, 1, {kernel}, 1] with an odd kernel, got {stored}");
        float[] weight = file.Floats("conv_weight");
        int half = kernel / 2;
        var taps = new float[heads * (half + 1)];
        for (int h = 0; h < heads; h++)
            for (int t = 0; t <= half; t++) taps[h * (half + 1) + t] = weight[h * kernel + half - t];
        return taps;
    }
}

/// <summary>A spec with its weights on the host.</summary>
/// <param name="Spec">The spec.</param>
/// <param name="Alpha">Factor on the global term.</param>
/// <param name="Taps"><c>[queryHeads, taps]</c>, null where there is no convolution.</param>
internal sealed record GroupedAttention(AttentionSpec Spec, float Alpha, float[]? Taps)
{
    /// <summary>The weights by name on a backend; the caller disposes them.</summary>
    public Dictionary<string, DeviceTensor> Upload(KernelBackend backend)
    {
        Dictionary<string, DeviceTensor> weights = [];
        if (Spec.HasAlpha) weights["alpha"] = backend.Upload<float>([Alpha], 1);
        if (Taps is not null) weights["taps"] = backend.Upload<float>(Taps, Spec.QueryHeads, Spec.ConvTaps);
        return weights;
    }
}
