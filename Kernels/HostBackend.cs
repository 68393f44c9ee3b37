namespace Treeline.Kernels;

/// <summary>A backend whose memory is the host's: what the oracle and the CPU backend have in common, and nothing that computes.</summary>
public abstract unsafe class HostBackend : KernelBackend
{
    private protected HostBackend() { }

    /// <inheritdoc/>
    protected sealed override DeviceBuffer AllocateCore(long bytes) => new HostBuffer(this, bytes);

    /// <inheritdoc/>
    protected sealed override DeviceBuffer WrapCore(nint pointer, long bytes) => new HostBuffer(this, pointer, bytes);

    /// <inheritdoc/>
    protected sealed override void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from)
    {
        ArgumentNullException.ThrowIfNull(to);
        int row = checked(to.RowLength * to.Type.Size());
        for (int i = 0; i < to.Rows; i++) from.Slice(i * row, row).CopyTo(Row(to, i, row));
    }

    /// <inheritdoc/>
    protected sealed override void ReadCore(DeviceTensor from, Span<byte> to)
    {
        ArgumentNullException.ThrowIfNull(from);
        int row = checked(from.RowLength * from.Type.Size());
        for (int i = 0; i < from.Rows; i++) Row(from, i, row).CopyTo(to.Slice(i * row, row));
    }

    /// <inheritdoc/>
    protected sealed override void CommitCore(AttentionState state, Step step, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(accepted);
        if (!accepted.IsDense)
        {
            base.CommitCore(state, step, accepted);
            return;
        }

        state.CommitChecked(step, new ReadOnlySpan<int>(accepted.Pointer<int>(), (int)accepted.Count));
    }

    private static Span<byte> Row(DeviceTensor tensor, int row, int bytes) =>
        new(((HostBuffer)tensor.Buffer).Pointer + (tensor.Offset + row * tensor.RowStride) * tensor.Type.Size(), bytes);
}
