using System.Runtime.InteropServices;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    /// <inheritdoc/>
    protected override object? PrepareCore(AttentionLayer layer)
    {
        ArgumentNullException.ThrowIfNull(layer);
        return layer.Spec.Attention == "flash" ? new FlashWeights(this, layer) : null;
    }

    /// <summary>A tensor's numbers on the host, as float32.</summary>
    internal float[] HostFloats(DeviceTensor tensor)
    {
        var bytes = new byte[tensor.Count * tensor.Type.Size()];
        ReadCore(tensor, bytes);
        return tensor.Type switch
        {
            ElementType.Float32 => MemoryMarshal.Cast<byte, float>(bytes).ToArray(),
            ElementType.BFloat16 => Array.ConvertAll(MemoryMarshal.Cast<byte, BFloat16>(bytes).ToArray(), x => (float)x),
            _ => Array.ConvertAll(MemoryMarshal.Cast<byte, System.Half>(bytes).ToArray(), x => (float)x),
        };
    }
}

/// <summary>α and the filter of one layer, float32 in device memory.</summary>
internal sealed class FlashWeights : IDisposable
{
    private readonly DeviceArray<float> _alpha, _taps, _strips;

    public FlashWeights(IlgpuBackend backend, AttentionLayer layer)
    {
        AttentionSpec spec = layer.Spec;
        (_alpha, _taps, _strips) = (new(backend), new(backend), new(backend));
        float[] taps = spec.ConvTaps > 0 ? backend.HostFloats(layer["taps"]) : [0];     // a kernel's argument is never empty; what a spec lacks is not read
        for (int i = 0; i < taps.Length; i++) taps[i] += 0f;                            // -0 has a meaning of its own in a strip
        Terms = new FlashTerms(_alpha.Upload(spec.HasAlpha ? backend.HostFloats(layer["alpha"]) : [1]), _taps.Upload(taps), _strips.Upload(Strips(taps, spec)));
    }

    public FlashTerms Terms { get; }

    public void Dispose()
    {
        _alpha.Dispose();
        _taps.Dispose();
        _strips.Dispose();
    }

    // Row r takes tap t + r, if there is one, of the value that lies t places before the first row's own.
    private static float[] Strips(float[] taps, AttentionSpec spec)
    {
        int values = FlashTerms.Values(spec.ConvTaps);
        var strips = new float[spec.QueryHeads * values * FlashTile.StripRows];
        for (int i = 0; i < strips.Length; i++)
        {
            int r = i % FlashTile.StripRows, value = i / FlashTile.StripRows % values, head = i / FlashTile.StripRows / values, tap = value + 1 - FlashTile.StripRows + r;
            strips[i] = tap >= 0 && tap < spec.ConvTaps ? taps[head * spec.ConvTaps + tap] : Tile.Unseen;
        }

        return strips;
    }
}
