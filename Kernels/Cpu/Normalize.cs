namespace Treeline.Kernels;

internal sealed unsafe partial class CpuKernels<S, V>
{
    /// <summary>x̂ = x / ‖x‖ in place; a zero vector becomes zero.</summary>
    /// <param name="x">The numbers; whole vectors are divided, so the last one must be padded.</param>
    /// <param name="n">How many.</param>
    private static void Normalize(float* x, int n) => DivideBy(x, n, MathF.Sqrt(SumOfSquares(x, n)));

    /// <summary>x / divisor in place; 0 where the divisor is 0.</summary>
    private static void DivideBy(float* x, int n, float divisor)
    {
        if (divisor == 0)
        {
            new Span<float>(x, n).Clear();
            return;
        }

        V d = S.Broadcast(divisor);
        for (int i = 0; i < n; i += S.Width) S.Store(x + i, S.Divide(S.Load(x + i), d));
    }
}
