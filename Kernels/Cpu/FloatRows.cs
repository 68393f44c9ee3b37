namespace Treeline.Kernels;

/// <summary>The rows of an input tensor of any float type, row stride free.</summary>
internal readonly unsafe struct FloatRows(DeviceTensor tensor)
{
    private readonly byte* _first = ((HostBuffer)tensor.Buffer).Pointer + tensor.Offset * tensor.Type.Size();
    private readonly nint _stride = (nint)tensor.RowStride;

    public ElementType Type { get; } = tensor.Type;

    /// <summary>Address of an element.</summary>
    public void* At(nint row, nint column) => _first + (row * _stride + column) * Type.Size();
}
