using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void SiluGateCore(DeviceTensor gate, DeviceTensor up, DeviceTensor output) => Elementwise<SiluGateFunction>(gate, up, output);

    private readonly struct SiluGateFunction : IElementwise
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.Multiply(TimesSigmoid<S, V>(x, x), y);
    }
}
