namespace Treeline.Kernels;

internal sealed unsafe partial class CpuKernels<S, V>
{
    /// <summary>x̂ = x / ‖x‖ in place; a zero vector becomes zero.</summary>
    /// <param name="x">The numbers; whole vectors are divided, so the last one must be padded.</param>
    /// <param name="n">How many.</param>
    private static void Normalize(float* x, int n)
    {
        float squares = SumOfSquares(x, n);
        if (!(squares is > 1e-30f and <= float.MaxValue)) squares = SumOfScaledSquares(x, n);
        DivideBy(x, n, MathF.Sqrt(squares));
    }

    /// <summary>Brings numbers whose squares leave float32's range near 1, by a power of two, which the division takes out again; zeros, infinities and NaN stay what they are.</summary>
    private static float SumOfScaledSquares(float* x, int n)
    {
        float largest = 0;
        for (int i = 0; i < n; i++) largest = MathF.Max(largest, MathF.Abs(x[i]));
        if (largest > 0 && float.IsFinite(largest))
        {
            int exponent = MathF.ILogB(largest);
            for (int i = 0; i < n; i++) x[i] = MathF.ScaleB(x[i], -exponent);
        }

        return SumOfSquares(x, n);
    }

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
