using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, Rows, Rows, int>? _geluExact, _geluTanh;

    /// <inheritdoc/>
    protected override void GeluCore(DeviceTensor input, GeluForm form, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        Action<AcceleratorStream, Index1D, Rows, Rows, int> gelu = form == GeluForm.Exact
            ? Load(ref _geluExact, GeluExactKernel)
            : Load(ref _geluTanh, GeluTanhKernel);
        gelu(Stream, Threads(output.Count), Floats(input, 0), Output(output), output.RowLength);
    }

    // One thread an element.
    private static void GeluExactKernel(Index1D index, Rows input, Rows output, int rowLength)
    {
        int row = index / rowLength, column = index % rowLength;
        float x = input[row, column];
        output[row, column] = x / 2 * (1 + Erf(x * 0.70710678f));
    }

    private static void GeluTanhKernel(Index1D index, Rows input, Rows output, int rowLength)
    {
        int row = index / rowLength, column = index % rowLength;
        float x = input[row, column];
        // (1 + tanh u)/2 = 1/(1 + exp(-2u)): right far out too.
        output[row, column] = x / (1 + XMath.Exp(-1.5957691f * (x + 0.044715f * x * x * x)));
    }

    // Abramowitz and Stegun 7.1.28 is not enough for float32: below 2 the series x·Σ, above it 1 - exp(-x²)·(continued fraction), both to 1e-7.
    private static float Erf(float x)
    {
        float a = XMath.Abs(x);
        if (a >= 4) return x > 0 ? 1 : -1;
        if (XMath.IsNaN(a)) return x;
        float square = x * x;
        if (a < 2)
        {
            float term = 1, sum = 1;
            for (int n = 1; n < 24; n++)
            {
                term *= 2 * square / (2 * n + 1);
                sum += term;
            }

            return 1.12837917f * x * XMath.Exp(-square) * sum;
        }

        float fraction = a;
        for (int n = 24; n > 0; n--) fraction = a + 0.5f * n / fraction;
        float rest = XMath.Exp(-square) / (fraction * 1.77245385f);
        return x > 0 ? 1 - rest : rest - 1;
    }
}
