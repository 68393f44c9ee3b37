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
    private readonly DeviceArray<float> _alpha, _taps;

    public FlashWeights(IlgpuBackend backend, AttentionLayer layer)
    {
        _alpha = new DeviceArray<float>(backend);
        _taps = new DeviceArray<float>(backend);
        // A kernel's argument is never empty; what a spec lacks is not read.
        Terms = new FlashTerms(_alpha.Upload(layer.Spec.HasAlpha ? backend.HostFloats(layer["alpha"]) : [1]), _taps.Upload(layer.Spec.ConvTaps > 0 ? backend.HostFloats(layer["taps"]) : [0]));
    }

    public FlashTerms Terms { get; }

    public void Dispose()
    {
        _alpha.Dispose();
        _taps.Dispose();
    }
}
