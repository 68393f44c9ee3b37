namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void LayerNormCore(DeviceTensor input, DeviceTensor gain, DeviceTensor bias, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        int channels = input.RowLength;
        float* shared = Threads.Shared(2 * (nint)channels);
        ForRows(input.Rows, channels, new LayerNormOp(this, input, Channels(gain, shared), Channels(bias, shared + channels), epsilon, output));
    }

    private readonly struct LayerNormOp(CpuBackend backend, DeviceTensor input, float* gain, float* bias, float epsilon, DeviceTensor output) : IRowOp
    {
        private readonly CpuRows _input = new(input);
        private readonly CpuRows _output = new(output);

        public void Run(int row, int worker)
        {
            CpuKernels kernels = backend.Kernels;
            int channels = _input.Length;
            float* x = _input.Row(row, kernels, backend.Threads.Scratch(worker, channels));
            float* y = _output.Row(row, kernels, null);
            // The mean twice: what rounding left of a large one is small, and is taken off too.
            kernels.Map(new Less(kernels.Sum(x, channels) / channels), x, x, x, y, channels);
            kernels.Map(new Less(kernels.Sum(y, channels) / channels), y, y, y, y, channels);
            float root = MathF.Sqrt(kernels.SumSquares(y, channels) / channels + epsilon);
            kernels.Map(new ScaledAndMoved(root), y, gain, bias, y, channels);
        }
    }

    /// <summary>x - mean.</summary>
    private readonly struct Less(float mean) : IElementwise
    {
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.Subtract(x, S.Broadcast(mean));
    }

    /// <summary>x / root · gain + bias.</summary>
    private readonly struct ScaledAndMoved(float root) : IElementwise
    {
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.MultiplyAdd(S.Divide(x, S.Broadcast(root)), y, z);
    }
}
