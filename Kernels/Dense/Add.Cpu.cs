namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output) => Elementwise<Sum>(left, right, output);

    private readonly struct Sum : IElementwise
    {
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.Add(x, y);
    }
}
