using Treeline.Kernels;

namespace Treeline;

/// <summary>Reads a rotary embedding's keys: <c>rope_theta</c> and <c>rope_scaling</c>, or both in the newer <c>rope_parameters</c>.</summary>
internal static class RotaryReader
{
    /// <exception cref="CheckpointException">A kind or a key that is not known: frequencies near the right ones are wrong ones.</exception>
    public static RotarySpec Read(JsonFields config, int headDim, int maxPositions)
    {
        JsonFields? newer = config.OptionalObject("rope_parameters");
        string key = newer is null ? "rope_scaling" : "rope_parameters";
        var plain = new RotarySpec { RotaryDim = headDim, Base = newer?.OptionalFloat("rope_theta") ?? config.OptionalFloat("rope_theta") ?? 10000 };
        JsonFields? scaling = newer ?? config.OptionalObject("rope_scaling");
        RotarySpec spec = scaling is JsonFields fields ? Scaled(fields, plain, maxPositions, newer is not null) : plain;
        try
        {
            spec.Validate();
        }
        catch (ArgumentException e)
        {
            throw config.Bad(key, e.Message);
        }

        return spec;
    }

    private static RotarySpec Scaled(JsonFields fields, RotarySpec plain, int maxPositions, bool newer)
    {
        string? older = fields.OptionalString("type"), current = fields.OptionalString("rope_type");
        if (older is not null && current is not null && older != current) throw fields.Bad("type", $"'{older}' contradicts rope_type '{current}'");
        string kind = current ?? older ?? (newer ? "default" : throw fields.Missing("rope_type"));
        switch (kind)
        {
            case "default":
                Allow(fields, newer);
                return plain;
            case "linear":
                Allow(fields, newer, "factor");
                return plain with { Scaling = RotaryScaling.Linear, Factor = fields.Float("factor") };
            case "dynamic":
                Allow(fields, newer, "factor", "original_max_position_embeddings");
                return plain with
                {
                    Scaling = RotaryScaling.Dynamic,
                    Factor = fields.Float("factor"),
                    OriginalMaxPositions = fields.OptionalPositive("original_max_position_embeddings") ?? maxPositions,
                };
            case "llama3":
                Allow(fields, newer, "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor");
                return plain with
                {
                    Scaling = RotaryScaling.Llama3,
                    Factor = fields.Float("factor"),
                    OriginalMaxPositions = fields.Positive("original_max_position_embeddings"),
                    LowFrequencyFactor = fields.Float("low_freq_factor"),
                    HighFrequencyFactor = fields.Float("high_freq_factor"),
                };
            default:
                throw fields.Unsupported("rope_type", $"'{kind}' is not supported; supported are default, linear, dynamic and llama3");
        }
    }

    private static void Allow(JsonFields fields, bool newer, params ReadOnlySpan<string> keys) =>
        fields.AllowOnly(newer ? ["rope_theta", "type", "rope_type", .. keys] : ["type", "rope_type", .. keys]);
}
