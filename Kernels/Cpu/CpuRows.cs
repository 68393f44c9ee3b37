namespace Treeline.Kernels;

/// <summary>A float tensor of the host, read row by row as float32.</summary>
internal readonly unsafe struct CpuRows(DeviceTensor tensor)
{
    private readonly byte* _start = tensor.Pointer<byte>() + tensor.Offset * (tensor.Type.Size() - 1);
    private readonly ElementType _type = tensor.Type;
    private readonly long _stride = tensor.RowStride * tensor.Type.Size();
    private readonly int _size = tensor.Type.Size();

    /// <summary>Numbers of one row.</summary>
    public int Length { get; } = tensor.RowLength;

    /// <summary>A row: where it lies if that is float32, else widened into scratch memory of <see cref="Length"/>.</summary>
    public float* Row(int row, CpuKernels kernels, float* scratch)
    {
        if (_type == ElementType.Float32) return (float*)(_start + row * _stride);
        Copy(row, 0, Length, kernels, scratch);
        return scratch;
    }

    /// <summary>Copies a part of a row.</summary>
    public void Copy(int row, int first, int count, CpuKernels kernels, float* to) =>
        kernels.Widen(_type, _start + row * _stride + (long)first * _size, count, to);
}

/// <summary>An op that treats each row by itself.</summary>
internal interface IRowOp
{
    /// <summary>Does one row.</summary>
    /// <param name="row">Which row.</param>
    /// <param name="worker">Which worker does it, for its scratch memory.</param>
    void Run(int row, int worker);
}

public unsafe partial class CpuBackend
{
    // A thread is worth waking from about as many numbers on.
    private const long RowPart = 1 << 13;

    /// <summary>Runs an op over all rows, a few at a time on each thread.</summary>
    private void ForRows<TOp>(int rows, int length, TOp op) where TOp : struct, IRowOp
    {
        int perPart = (int)Math.Clamp(RowPart / Math.Max(1, length), 1, Math.Max(1, rows));
        var job = new RowJob<TOp>(op, rows, perPart);
        Threads.For((rows + perPart - 1) / perPart, ref job);
    }

    /// <summary>A vector of channels as float32 without gaps: where it lies if it is so, else copied.</summary>
    private float* Channels(DeviceTensor vector, float* scratch)
    {
        if (vector.Type == ElementType.Float32 && (vector.RowStride == 1 || vector.Rows == 1)) return vector.Pointer<float>();
        var rows = new CpuRows(vector);
        for (int i = 0; i < vector.Rows; i++) rows.Copy(i, 0, 1, Kernels, scratch + i);
        return scratch;
    }

    private readonly struct RowJob<TOp>(TOp op, int rows, int perPart) : IJob where TOp : struct, IRowOp
    {
        public void Run(int part, int worker)
        {
            int end = Math.Min(rows, (part + 1) * perPart);
            for (int row = part * perPart; row < end; row++) op.Run(row, worker);
        }
    }
}
