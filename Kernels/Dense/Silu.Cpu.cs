using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void SiluCore(DeviceTensor input, DeviceTensor output) => Elementwise<SiluFunction>(input, input, output);

    private readonly struct SiluFunction : IElementwise
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => TimesSigmoid<S, V>(x, x);
    }

    /// <summary>x · sigmoid(at).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static V TimesSigmoid<S, V>(V x, V at) where S : struct, ISimd<V> where V : unmanaged =>
        S.Divide(x, S.Add(S.Broadcast(1), S.Exp(S.Subtract(S.Broadcast(0), at))));
}
