namespace Treeline.Kernels;

/// <summary>Keys and values of verified trees, one tree a slot, kept until a path of it is committed or the slot's next step drops it.</summary>
/// <param name="backend">Whose memory it is.</param>
/// <param name="slots">Number of slots.</param>
/// <param name="heads">Key/value heads.</param>
/// <param name="keyDim">Channels of a key; 0 where no keys are kept.</param>
/// <param name="valueStride">Floats of a padded value.</param>
internal sealed unsafe class PendingRows(CpuBackend backend, int slots, int heads, int keyDim, int valueStride) : IDisposable
{
    private readonly HostBuffer?[] _buffers = new HostBuffer?[slots];
    private readonly int[] _strides = new int[slots];

    /// <summary>Makes room for a tree's nodes; what the slot held is dropped.</summary>
    public void Reserve(int slot, int nodes)
    {
        int stride = CpuLayer.TransposedStride(nodes);
        long bytes = heads * HeadFloats(stride) * sizeof(float);
        if (_buffers[slot] is not { } have || have.Bytes < bytes)
        {
            var larger = new HostBuffer(backend, bytes);
            _buffers[slot]?.Dispose();
            _buffers[slot] = larger;
        }

        _strides[slot] = stride;
    }

    /// <summary>Keys, transposed <c>[keyDim, Stride]</c>: lanes run over nodes.</summary>
    public float* Keys(int slot, int head) => (float*)_buffers[slot]!.Pointer + head * HeadFloats(_strides[slot]);

    /// <summary>Values <c>[nodes, valueStride]</c>.</summary>
    public float* Values(int slot, int head) => Keys(slot, head) + (nint)keyDim * _strides[slot];

    /// <summary>Distance of the rows of the transposed keys.</summary>
    public int Stride(int slot) => _strides[slot];

    public void Dispose()
    {
        foreach (HostBuffer? buffer in _buffers) buffer?.Dispose();
    }

    private nint HeadFloats(int stride) => ((nint)keyDim + valueStride) * stride;
}
