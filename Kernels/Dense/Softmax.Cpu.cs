using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void SoftmaxCore(DeviceTensor input, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        ForRows(input.Rows, input.RowLength, new SoftmaxOp(this, input, output));
    }

    private readonly struct SoftmaxOp(CpuBackend backend, DeviceTensor input, DeviceTensor output) : IRowOp
    {
        private readonly CpuRows _input = new(input);
        private readonly CpuRows _output = new(output);

        public void Run(int row, int worker)
        {
            CpuKernels kernels = backend.Kernels;
            int channels = _input.Length;
            float* x = _input.Row(row, kernels, backend.Threads.Scratch(worker, channels));
            float* y = _output.Row(row, kernels, null);
            kernels.Map(new ExpOf(kernels.Max(x, channels), 1), x, x, x, y, channels);
            kernels.Map(new Over(kernels.Sum(y, channels)), y, y, y, y, channels);
        }
    }

    /// <summary>exp((x - max) / temperature).</summary>
    private readonly struct ExpOf(float max, float temperature) : IElementwise
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged =>
            S.Exp(S.Divide(S.Subtract(x, S.Broadcast(max)), S.Broadcast(temperature)));
    }

    /// <summary>x / divisor.</summary>
    private readonly struct Over(float divisor) : IElementwise
    {
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.Divide(x, S.Broadcast(divisor));
    }
}
