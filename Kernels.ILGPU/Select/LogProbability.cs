using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<int>, long, Rows, int>? _logProbability;

    /// <inheritdoc/>
    protected override void LogProbabilityCore(DeviceTensor logits, DeviceTensor tokens, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentNullException.ThrowIfNull(output);
        if (logits.Rows == 0) return;
        RequireIndices(tokens, logits.RowLength, nameof(tokens));
        Load(ref _logProbability, LogProbabilityKernel)(
            Stream, RowGroups(logits.Rows, logits.RowLength), Floats(logits, 0), Elements<int>(tokens), tokens.RowStride, Output(output), logits.RowLength);
    }

    // A group a row.
    private static void LogProbabilityKernel(Rows logits, ArrayView<int> tokens, long stride, Rows output, int columns)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Most);
        int row = Grid.IdxX;
        float largest = float.NegativeInfinity, sum = 0;
        for (int c = Group.IdxX; c < columns; c += Group.DimX) largest = RowGroup.Larger(largest, logits[row, c]);
        largest = RowGroup.Max(shared, largest);
        for (int c = Group.IdxX; c < columns; c += Group.DimX) sum += XMath.Exp(logits[row, c] - largest);
        sum = RowGroup.Sum(shared, sum);
        if (Group.IdxX == 0) output[row, 0] = logits[row, tokens[row * stride]] - largest - XMath.Log(sum);
    }
}
