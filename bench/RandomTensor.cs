using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>Tensors of random numbers.</summary>
internal static class RandomTensor
{
    /// <summary>Numbers in [-0.5, 0.5), the same for the same seed.</summary>
    public static DeviceTensor Of(KernelBackend backend, int seed, params ReadOnlySpan<int> shape)
    {
        var random = new Random(seed);
        DeviceTensor tensor = backend.Allocate(ElementType.Float32, shape);
        var numbers = new float[tensor.Count];
        foreach (ref float x in numbers.AsSpan()) x = random.NextSingle() - 0.5f;
        backend.Write<float>(tensor, numbers);
        return tensor;
    }
}
