using System.Runtime.InteropServices;
using Treeline.Kernels;

/// <summary>The engine's own memory: one block, from which tensors are cut. The kernels see it through <see cref="KernelBackend.Wrap"/>, nothing is copied.</summary>
internal sealed unsafe class Arena(KernelBackend backend, int bytes) : IDisposable
{
    private readonly byte* _block = (byte*)NativeMemory.AlignedAlloc((nuint)bytes, 64);
    private int _used;

    /// <summary>A float32 tensor; its numbers are whatever lies there.</summary>
    public DeviceTensor Floats(params ReadOnlySpan<int> shape) => Cut(ElementType.Float32, shape);

    /// <summary>An int32 tensor.</summary>
    public DeviceTensor Integers(params ReadOnlySpan<int> shape) => Cut(ElementType.Int32, shape);

    /// <summary>A weight with random numbers around a mean.</summary>
    public DeviceTensor Random(Random random, float mean, float spread, params ReadOnlySpan<int> shape)
    {
        DeviceTensor tensor = Floats(shape);
        var numbers = new float[tensor.Count];
        for (int i = 0; i < numbers.Length; i++) numbers[i] = mean + spread * (2 * random.NextSingle() - 1);
        backend.Write<float>(tensor, numbers);
        return tensor;
    }

    public void Dispose() => NativeMemory.AlignedFree(_block);

    private DeviceTensor Cut(ElementType type, ReadOnlySpan<int> shape)
    {
        int size = type.Size();
        foreach (int n in shape) size *= n;
        if (_used + size > bytes) throw new InvalidOperationException($"arena: {bytes} bytes, {_used} in use, {size} asked for");
        DeviceTensor tensor = backend.Wrap((nint)(_block + _used), type, shape);
        _used += (size + 63) & ~63;
        return tensor;
    }
}
