namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void ArgMaxCore(DeviceTensor logits, DeviceTensor tokens)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ForRows(logits.Rows, logits.RowLength, new ArgMaxOp(this, logits, new CpuIntegers(tokens)));
    }

    private readonly struct ArgMaxOp(CpuBackend backend, DeviceTensor logits, CpuIntegers tokens) : IRowOp
    {
        private readonly CpuRows _logits = new(logits);

        public void Run(int row, int worker)
        {
            float* x = _logits.Row(row, backend.Kernels, backend.Threads.Scratch(worker, _logits.Length));
            tokens[row] = Largest(x, backend.Kernels.Max(x, _logits.Length));
        }
    }

    /// <summary>The first index of the row's maximum, which is NaN where the row has one.</summary>
    private static int Largest(float* row, float max)
    {
        int i = 0;
        if (float.IsNaN(max)) while (!float.IsNaN(row[i])) i++;
        else while (row[i] != max) i++;
        return i;
    }
}

/// <summary>A vector of int32 of the host; its elements may lie apart.</summary>
internal readonly unsafe struct CpuIntegers(int* start, nint stride)
{
    public CpuIntegers(DeviceTensor tensor) : this(tensor.Pointer<int>(), (nint)tensor.RowStride) { }

    public int this[int index]
    {
        get => start[index * stride];
        set => start[index * stride] = value;
    }
}
