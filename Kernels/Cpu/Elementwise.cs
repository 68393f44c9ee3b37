using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>A function of up to three numbers, applied lane by lane.</summary>
internal interface IElementwise
{
    V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged;
}

internal abstract unsafe partial class CpuKernels
{
    /// <summary><c>output[i] = f(x[i], y[i], z[i])</c>; the output may be one of the inputs, and an input that f does not look at may be any other.</summary>
    public abstract void Map<F>(F f, float* x, float* y, float* z, float* output, nint count) where F : struct, IElementwise;
}

internal sealed unsafe partial class CpuKernels<S, V>
{
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public override void Map<F>(F f, float* x, float* y, float* z, float* output, nint count)
    {
        nint i = 0;
        for (; i <= count - S.Width; i += S.Width)
            S.Store(output + i, f.Apply<S, V>(S.Load(x + i), S.Load(y + i), S.Load(z + i)));
        if (i == count) return;

        // The rest is a padded whole vector: a scalar form of the function would give other bits.
        float* rest = stackalloc float[3 * 16];
        int left = (int)(count - i);
        CopyPadded(x + i, left, rest);
        CopyPadded(y + i, left, rest + 16);
        CopyPadded(z + i, left, rest + 32);
        S.Store(rest, f.Apply<S, V>(S.Load(rest), S.Load(rest + 16), S.Load(rest + 32)));
        for (int lane = 0; lane < left; lane++) output[i + lane] = rest[lane];
    }
}

public unsafe partial class CpuBackend
{
    /// <summary>Applies a function to each element of one or two tensors.</summary>
    private void Elementwise<F>(DeviceTensor x, DeviceTensor y, DeviceTensor output, F f = default) where F : struct, IElementwise =>
        ForRows(x.Rows, x.RowLength, new ElementwiseOp<F>(this, f, x, y, output));

    private readonly struct ElementwiseOp<F>(CpuBackend backend, F f, DeviceTensor x, DeviceTensor y, DeviceTensor output) : IRowOp
        where F : struct, IElementwise
    {
        private readonly CpuRows _x = new(x);
        private readonly CpuRows _y = new(y);
        private readonly CpuRows _output = new(output);

        public void Run(int row, int worker)
        {
            float* scratch = backend.Threads.Scratch(worker, 2 * (nint)_x.Length);
            float* left = _x.Row(row, backend.Kernels, scratch), right = _y.Row(row, backend.Kernels, scratch + _x.Length);
            backend.Kernels.Map(f, left, right, left, _output.Row(row, backend.Kernels, null), _x.Length);
        }
    }
}
