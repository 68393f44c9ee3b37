namespace Treeline.Kernels;

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override void EmbeddingCore(DeviceTensor table, DeviceTensor ids, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(table);
        ArgumentNullException.ThrowIfNull(ids);
        RequireIndices(ids, table.Rows, nameof(ids));
        ForRows(ids.Rows, table.RowLength, new EmbeddingOp(this, table, ids, output));
    }

    private readonly struct EmbeddingOp(CpuBackend backend, DeviceTensor table, DeviceTensor ids, DeviceTensor output) : IRowOp
    {
        private readonly CpuRows _table = new(table);
        private readonly CpuRows _output = new(output);
        private readonly int* _ids = ids.Pointer<int>();
        private readonly nint _stride = (nint)ids.RowStride;

        public void Run(int row, int worker) =>
            _table.Copy(_ids[row * _stride], 0, _table.Length, backend.Kernels, _output.Row(row, backend.Kernels, null));
    }

    /// <summary>Refuses integers outside 0 … limit - 1.</summary>
    private static void RequireIndices(DeviceTensor indices, int limit, string name)
    {
        int* at = indices.Pointer<int>();
        for (int i = 0; i < indices.Rows; i++)
        {
            int index = at[i * (nint)indices.RowStride];
            if ((uint)index >= (uint)limit) throw new ArgumentException($"{name}: expected 0 to {limit - 1}, got {index}", name);
        }
    }
}
