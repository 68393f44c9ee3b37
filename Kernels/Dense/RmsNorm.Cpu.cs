namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void RmsNormCore(DeviceTensor input, DeviceTensor gain, float epsilon, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        float* gains = Channels(gain, Threads.Shared(input.RowLength));
        ForRows(input.Rows, input.RowLength, new RmsNormOp(this, input, gains, epsilon, output));
    }

    private readonly struct RmsNormOp(CpuBackend backend, DeviceTensor input, float* gain, float epsilon, DeviceTensor output) : IRowOp
    {
        private readonly CpuRows _input = new(input);
        private readonly CpuRows _output = new(output);

        public void Run(int row, int worker)
        {
            int channels = _input.Length;
            float* x = _input.Row(row, backend.Kernels, backend.Threads.Scratch(worker, channels));
            float root = MathF.Sqrt(backend.Kernels.SumSquares(x, channels) / channels + epsilon);
            backend.Kernels.Map(new Scaled(root), x, gain, x, _output.Row(row, backend.Kernels, null), channels);
        }
    }

    /// <summary>x / root · gain.</summary>
    private readonly struct Scaled(float root) : IElementwise
    {
        public V Apply<S, V>(V x, V y, V z) where S : struct, ISimd<V> where V : unmanaged => S.Multiply(S.Divide(x, S.Broadcast(root)), y);
    }
}
