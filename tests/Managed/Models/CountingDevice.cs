using Treeline.Kernels;

namespace Treeline.Tests.Managed.Models;

/// <summary>A device that computes nothing and counts what is allocated on it.</summary>
internal sealed class CountingDevice : KernelBackend
{
    public override string Name => "counting";

    public override string Description => "no kernels";

    /// <summary>Buffers and packed weights that have not been given back.</summary>
    public int Alive { get; private set; }

    /// <summary>All that were ever made.</summary>
    public int Made { get; private set; }

    protected override DeviceBuffer AllocateCore(long bytes) => new Buffer(this, bytes);

    protected override DeviceBuffer WrapCore(nint pointer, long bytes) => throw new InvalidOperationException("memory of the host is not this device's");

    protected override void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from) { }

    protected override void ReadCore(DeviceTensor from, Span<byte> to) { }

    protected override bool SupportsCore(AttentionSpec spec, out string why)
    {
        why = "";
        return true;
    }

    protected override WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed) => new Matrix(this, weight, form, transposed);

    protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => throw Unsupported(nameof(CreateState));

    protected override void Dispose(bool disposing) { }

    private void Count(int change)
    {
        Alive += change;
        if (change > 0) Made++;
    }

    private sealed class Buffer : DeviceBuffer
    {
        private bool _disposed;

        public Buffer(CountingDevice device, long bytes) : base(device, bytes) => device.Count(1);

        public override bool IsDisposed => _disposed;

        protected override void Dispose(bool disposing)
        {
            if (!_disposed) ((CountingDevice)Backend).Count(-1);
            _disposed = true;
        }
    }

    private sealed class Matrix : WeightMatrix
    {
        public Matrix(CountingDevice device, DeviceTensor weight, WeightForm form, bool transposed)
            : base(device, form, transposed ? weight.RowLength : weight.Rows, transposed ? weight.Rows : weight.RowLength) => device.Count(1);

        public override long Bytes => 0;

        protected override void Dispose(bool disposing) => ((CountingDevice)Backend).Count(-1);
    }
}
