using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void GeluCore(DeviceTensor input, GeluForm form, DeviceTensor output)
    {
        if (form == GeluForm.Exact) Elementwise<ExactGelu>(input, input, output);
        else Elementwise<TanhGelu>(input, input, output);
    }

    private readonly struct TanhGelu : IElementwise
    {
        // x/2 · (1 + tanh u) = x · sigmoid(2u)
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged
        {
            V cubic = S.Multiply(S.Multiply(x, x), x);
            V u = S.MultiplyAdd(S.Broadcast(0.044715f), cubic, x);
            return TimesSigmoid<S, V>(x, S.Multiply(S.Broadcast(1.5957691216057308f), u));      // 2 √(2/π)
        }
    }

    private readonly struct ExactGelu : IElementwise
    {
        // x/2 · erfc(-x/√2); erfc(-a) = 2 - erfc(a).
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged
        {
            V zero = S.Broadcast(0);
            V tail = Erfc<S, V>(S.Multiply(S.Max(x, S.Subtract(zero, x)), S.Broadcast(0.70710678118654752f)));
            return S.Multiply(S.Multiply(x, S.Broadcast(0.5f)), S.WhereGreater(x, zero, S.Subtract(S.Broadcast(2), tail), tail));
        }

        /// <summary>erfc of a ≥ 0: t · exp(-a² + P(t)), t = 1/(1 + a/2), relative error 1.2e-7 before rounding. Press et al., Numerical Recipes, 6.2.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        private static V Erfc<S, V>(V a) where S : struct, ISimd<V> where V : unmanaged
        {
            V t = S.Divide(S.Broadcast(1), S.MultiplyAdd(a, S.Broadcast(0.5f), S.Broadcast(1)));
            V p = S.Broadcast(0.17087277f);
            p = S.MultiplyAdd(p, t, S.Broadcast(-0.82215223f));
            p = S.MultiplyAdd(p, t, S.Broadcast(1.48851587f));
            p = S.MultiplyAdd(p, t, S.Broadcast(-1.13520398f));
            p = S.MultiplyAdd(p, t, S.Broadcast(0.27886807f));
            p = S.MultiplyAdd(p, t, S.Broadcast(-0.18628806f));
            p = S.MultiplyAdd(p, t, S.Broadcast(0.09678418f));
            p = S.MultiplyAdd(p, t, S.Broadcast(0.37409196f));
            p = S.MultiplyAdd(p, t, S.Broadcast(1.00002368f));
            p = S.MultiplyAdd(p, t, S.Broadcast(-1.26551223f));
            return S.Multiply(t, S.Exp(S.Subtract(p, S.Multiply(a, a))));
        }
    }
}
