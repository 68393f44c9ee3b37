using Treeline.Kernels;

namespace Treeline;

/// <summary>A layer's attention, from a checkpoint's configuration.</summary>
internal static class ModelAttention
{
    /// <summary>What a layer computes.</summary>
    public static AttentionSpec Spec(ModelConfig config, int layer)
    {
        AttentionSpec softmax = AttentionSpec.Softmax(config.QueryHeads, config.KeyValueHeads, config.HeadDim);
        if (config.Linear is not { } linear) return softmax with { ScoreScale = ScoreScale(config, layer) };
        return softmax with
        {
            Attention = "flash",
            Local = linear.Local,
            GroupSize = linear.GroupSize,
            Global = linear.Global,
            HasAlpha = linear.GlobalFactor,
            ConvTaps = (linear.ConvKernelSize + 1) / 2,         // the half that does not look into the future
        };
    }

    /// <summary>The tensors that it binds.</summary>
    public static Dictionary<string, DeviceTensor> Weights(ModelWeights weights, ModelConfig config, string alpha, string taps)
    {
        var bound = new Dictionary<string, DeviceTensor>();
        if (config.Linear is not { } linear) return bound;
        if (linear.GlobalFactor) bound["alpha"] = weights.Vector(alpha, 1);
        if (linear.ConvKernelSize > 0) bound["taps"] = weights.Taps(taps, config.QueryHeads, linear.ConvKernelSize);
        return bound;
    }

    // Null is the attention's own, 1/√headDim.
    private static float? ScoreScale(ModelConfig config, int layer)
    {
        if (config is { ScaleScores: true, ScaleByInverseLayer: false }) return null;
        double scale = config.ScaleScores ? 1 / Math.Sqrt(config.HeadDim) : 1;
        return (float)(config.ScaleByInverseLayer ? scale / (layer + 1) : scale);
    }
}
