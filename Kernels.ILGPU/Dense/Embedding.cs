using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, ArrayView<float>, long, ArrayView<int>, long, Rows, int>? _embedding;
    private Action<AcceleratorStream, Index1D, ArrayView<ushort>, long, ArrayView<int>, long, Rows, int>? _embeddingBFloat16, _embeddingFloat16;

    /// <inheritdoc/>
    protected override void EmbeddingCore(DeviceTensor table, DeviceTensor ids, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(table);
        ArgumentNullException.ThrowIfNull(ids);
        ArgumentNullException.ThrowIfNull(output);
        if (ids.Rows == 0) return;
        RequireIndices(ids, table.Rows, nameof(ids));
        if (output.Count == 0) return;
        Index1D threads = Threads(output.Count);
        ArrayView<int> rows = Elements<int>(ids);
        if (table.Type == ElementType.Float32)
        {
            Load(ref _embedding, EmbeddingKernel<float, Float32Weight>)(
                Stream, threads, Elements<float>(table), table.RowStride, rows, ids.RowStride, Output(output), output.RowLength);
            return;
        }

        Action<AcceleratorStream, Index1D, ArrayView<ushort>, long, ArrayView<int>, long, Rows, int> narrow = table.Type == ElementType.BFloat16
            ? Load(ref _embeddingBFloat16, EmbeddingKernel<ushort, BFloat16Weight>)
            : Load(ref _embeddingFloat16, EmbeddingKernel<ushort, Float16Weight>);
        narrow(Stream, threads, Elements<ushort>(table), table.RowStride, rows, ids.RowStride, Output(output), output.RowLength);
    }

    // One thread an element of the output; a narrow table is never widened as a whole.
    private static void EmbeddingKernel<T, TStored>(Index1D index, ArrayView<T> table, long stride, ArrayView<int> ids, long idStride, Rows output, int rowLength)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        int row = index / rowLength, column = index % rowLength;
        output[row, column] = TStored.Load(table, ids[row * idStride] * stride, column, 1, 1);
    }
}
