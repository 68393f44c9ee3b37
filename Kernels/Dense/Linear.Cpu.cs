using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Treeline.Kernels;

/// <summary>A product's operands.</summary>
internal readonly unsafe struct LinearOperands(DeviceTensor input, CpuWeightMatrix weight, float* bias, DeviceTensor output)
{
    public readonly CpuRows Input = new(input);
    public readonly CpuWeightMatrix Weight = weight;
    public readonly float* Bias = bias;                     // null for none
    public readonly float* Output = output.Pointer<float>();
    public readonly nint OutputStride = (nint)output.RowStride;
}

public unsafe partial class CpuBackend
{
    // A thread is worth waking from about as many multiply-adds on.
    private const long LinearPart = 1 << 16;

    /// <inheritdoc/>
    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(output);
        var matrix = (CpuWeightMatrix)weight;
        matrix.RequireMemory();
        if (input.Rows == 0) return;
        float* added = bias is null ? null : Channels(bias, Threads.Shared(matrix.Outputs));

        bool inPlace = matrix.Form == WeightForm.InPlace;
        int units = inPlace ? (matrix.Outputs + CpuKernels.InPlaceOutputs - 1) / CpuKernels.InPlaceOutputs : matrix.Panels;
        int rowParts = (input.Rows + CpuKernels.LinearRows - 1) / CpuKernels.LinearRows;
        // Four parts a thread, so that one that is held up elsewhere does not hold up the others.
        long parts = Math.Min(4 * Threads.Count, (long)Math.Min(input.Rows, CpuKernels.LinearRows) * matrix.Outputs * matrix.Inputs / LinearPart);
        int unitParts = (int)Math.Clamp(parts, 1, units);
        var job = new LinearJob(this, new LinearOperands(input, matrix, added, output), input.Rows, units, unitParts);
        Threads.For(rowParts * unitParts, ref job);
    }

    private readonly struct LinearJob(CpuBackend backend, LinearOperands operands, int rows, int units, int unitParts) : IJob
    {
        public void Run(int part, int worker)
        {
            (int rowPart, int unitPart) = Math.DivRem(part, unitParts);
            int firstRow = rowPart * CpuKernels.LinearRows, endRow = Math.Min(rows, firstRow + CpuKernels.LinearRows);
            int first = (int)((long)units * unitPart / unitParts), end = (int)((long)units * (unitPart + 1) / unitParts);
            if (operands.Weight.Form == WeightForm.InPlace) backend.Kernels.InPlaceProduct(operands, first, end, firstRow, endRow, backend.Threads, worker);
            else backend.Kernels.PackedProduct(operands, first, end, firstRow, endRow, backend.Threads, worker);
        }
    }
}

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Rows that one part of a product takes: their inputs of one block of channels stay in the second-level cache.</summary>
    public const int LinearRows = 256;

    /// <summary>Outputs of a panel of a packed weight: three vectors.</summary>
    public int PanelLanes => 3 * Width;

    /// <summary>Outputs <c>firstPanel · PanelLanes</c> to <c>endPanel · PanelLanes</c> of some rows.</summary>
    public abstract void PackedProduct(in LinearOperands operands, int firstPanel, int endPanel, int firstRow, int endRow, CpuThreads threads, int worker);
}

// Each output is one chain of multiply-adds over the channels in order from +0, then the bias; lanes run over outputs.
// So the bits of a row depend neither on the other rows nor on how the channels are cut into blocks: a block goes on from the stored sum.
internal sealed unsafe partial class CpuKernels<S, V>
{
    private const int PrefetchBytes = 2048;                 // how far ahead of a tile its weights are asked for; 4 and 8 KB did less
    private const int ChannelBlock = 192;                   // a float32 panel's block is 36 KB: it stays in the first-level cache

    // With three vectors of outputs 24 sums where the processor has 32 registers, 12 where it has 16: more would live in memory.
    // How many rows share a tile is no part of any sum.
    private static int TileRows => S.Width == 16 || AdvSimd.IsSupported ? 8 : 4;

    private static int Lanes => 3 * S.Width;

    public override void PackedProduct(in LinearOperands operands, int firstPanel, int endPanel, int firstRow, int endRow, CpuThreads threads, int worker)
    {
        switch (operands.Weight.Form)
        {
            case WeightForm.BFloat16: PackedProduct<BFloat16Element>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker); break;
            case WeightForm.Float16: PackedProduct<Float16Element>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker); break;
            case WeightForm.Int8: BlockProduct<Int8Block>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker); break;
            case WeightForm.Int4: BlockProduct<Int4Block>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker); break;
            default: PackedProduct<Float32Element>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker); break;
        }
    }

    private void PackedProduct<W>(in LinearOperands operands, int firstPanel, int endPanel, int firstRow, int endRow, CpuThreads threads, int worker)
        where W : struct, IElement
    {
        if (endRow - firstRow == 1) OneRow<W>(operands, firstPanel, endPanel, firstRow, threads, worker);
        else ManyRows<StoredPanels<W>, W>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker);
    }

    /// <summary>Streams the panels once, four at a time: twelve chains in flight.</summary>
    private void OneRow<W>(in LinearOperands operands, int firstPanel, int endPanel, int row, CpuThreads threads, int worker) where W : struct, IElement
    {
        CpuWeightMatrix weight = operands.Weight;
        float* x = operands.Input.Row(row, this, threads.Scratch(worker, weight.Inputs));
        float* sums = stackalloc float[4 * Lanes];
        for (int panel = firstPanel; panel < endPanel;)
        {
            int panels = endPanel - panel >= 4 ? 4 : 1;
            byte* from = weight.Pointer + panel * weight.PanelBytes;
            nint stride = (nint)weight.PanelBytes;
            if (panels == 4) FourPanels<W>(from, from + stride, from + 2 * stride, from + 3 * stride, x, weight.Inputs, sums);
            else Tile<W, Rows1>(from, x, weight.Inputs, sums, 0, isFirst: true);
            int first = panel * Lanes;
            Finish(sums, operands.Bias, first, Math.Min(panels * Lanes, weight.Outputs - first), operands.Output + row * operands.OutputStride);
            panel += panels;
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void FourPanels<W>(byte* w0, byte* w1, byte* w2, byte* w3, float* x, int channels, float* sums) where W : struct, IElement
    {
        ThreeVectors a0 = default, a1 = default, a2 = default, a3 = default;
        for (nint c = 0; c < channels; c++)
        {
            V value = S.Broadcast(x[c]);
            nint at = c * Lanes;
            a0.MultiplyAdd(W.Load<S, V>(w0, at), W.Load<S, V>(w0, at + S.Width), W.Load<S, V>(w0, at + 2 * S.Width), value);
            a1.MultiplyAdd(W.Load<S, V>(w1, at), W.Load<S, V>(w1, at + S.Width), W.Load<S, V>(w1, at + 2 * S.Width), value);
            a2.MultiplyAdd(W.Load<S, V>(w2, at), W.Load<S, V>(w2, at + S.Width), W.Load<S, V>(w2, at + 2 * S.Width), value);
            a3.MultiplyAdd(W.Load<S, V>(w3, at), W.Load<S, V>(w3, at + S.Width), W.Load<S, V>(w3, at + 2 * S.Width), value);
        }

        a0.Store(sums);
        a1.Store(sums + Lanes);
        a2.Store(sums + 2 * Lanes);
        a3.Store(sums + 3 * Lanes);
    }

    /// <summary>Adds the bias and writes some outputs of one row.</summary>
    private static void Finish(float* sums, float* bias, int first, int count, float* output)
    {
        for (int i = 0; i < count; i++) output[first + i] = bias is null ? sums[i] : sums[i] + bias[first + i];
    }

    /// <summary>Where a product of many rows finds some channels of a panel, <c>[channel][lane]</c>.</summary>
    private interface IPanels
    {
        /// <param name="weight">The weight.</param>
        /// <param name="panel">Which panel.</param>
        /// <param name="first">Its first channel, a multiple of <see cref="ChannelBlock"/>.</param>
        /// <param name="channels">How many.</param>
        /// <param name="scratch">Memory for them, where they do not lie so.</param>
        static abstract byte* Channels(CpuWeightMatrix weight, int panel, int first, int channels, float* scratch);
    }

    private readonly struct StoredPanels<W> : IPanels where W : struct, IElement
    {
        public static byte* Channels(CpuWeightMatrix weight, int panel, int first, int channels, float* scratch) =>
            weight.Pointer + panel * weight.PanelBytes + (nint)first * Lanes * W.Size;
    }

    private void ManyRows<P, W>(in LinearOperands operands, int firstPanel, int endPanel, int firstRow, int endRow, CpuThreads threads, int worker)
        where P : struct, IPanels
        where W : struct, IElement
    {
        CpuWeightMatrix weight = operands.Weight;
        int rows = endRow - firstRow;
        float* x = threads.Scratch(worker, (nint)(rows + Lanes) * ChannelBlock), scratch = x + (nint)rows * ChannelBlock;
        for (int block = 0; block < weight.Inputs; block += ChannelBlock)
        {
            int channels = Math.Min(ChannelBlock, weight.Inputs - block);
            for (int r = 0; r < rows; r++) operands.Input.Copy(firstRow + r, block, channels, this, x + r * ChannelBlock);
            for (int panel = firstPanel; panel < endPanel; panel++)
            {
                byte* from = P.Channels(weight, panel, block, channels, scratch);
                PanelBlock<W>(operands, panel, from, x, channels, firstRow, rows, block == 0);
            }
        }

        if (operands.Bias is null) return;
        int first = firstPanel * Lanes, count = Math.Min(endPanel * Lanes, weight.Outputs) - first;
        for (int r = firstRow; r < endRow; r++)
        {
            float* output = operands.Output + r * operands.OutputStride;
            Finish(output + first, operands.Bias, first, count, output);
        }
    }

    /// <summary>One block of channels of one panel for all rows; tiles of nearly equal heights.</summary>
    private static void PanelBlock<W>(in LinearOperands operands, int panel, byte* from, float* x, int channels, int firstRow, int rows, bool isFirst) where W : struct, IElement
    {
        float* edge = stackalloc float[TileRows * Lanes];
        int first = panel * Lanes, lanes = Math.Min(Lanes, operands.Weight.Outputs - first);
        int tiles = (rows + TileRows - 1) / TileRows;
        for (int tile = 0; tile < tiles; tile++)
        {
            int start = rows * tile / tiles, height = rows * (tile + 1) / tiles - start;
            float* output = operands.Output + (firstRow + start) * operands.OutputStride + first;
            if (lanes == Lanes)
            {
                Tile<W>(height, from, x + start * ChannelBlock, channels, output, operands.OutputStride, isFirst);
                continue;
            }

            // The last panel has more lanes than there are outputs: its sums live beside the output.
            for (int r = 0; r < height; r++)
                for (int i = 0; i < lanes; i++) edge[r * Lanes + i] = isFirst ? 0 : output[r * operands.OutputStride + i];
            Tile<W>(height, from, x + start * ChannelBlock, channels, edge, Lanes, isFirst);
            for (int r = 0; r < height; r++)
                for (int i = 0; i < lanes; i++) output[r * operands.OutputStride + i] = edge[r * Lanes + i];
        }
    }

    private static void Tile<W>(int height, byte* w, float* x, int channels, float* sums, nint stride, bool isFirst) where W : struct, IElement
    {
        switch (height)
        {
            case 1: Tile<W, Rows1>(w, x, channels, sums, stride, isFirst); break;
            case 2: Tile<W, Rows2>(w, x, channels, sums, stride, isFirst); break;
            case 3: Tile<W, Rows3>(w, x, channels, sums, stride, isFirst); break;
            case 4: Tile<W, Rows4>(w, x, channels, sums, stride, isFirst); break;
            case 5: Tile<W, Rows5>(w, x, channels, sums, stride, isFirst); break;
            case 6: Tile<W, Rows6>(w, x, channels, sums, stride, isFirst); break;
            case 7: Tile<W, Rows7>(w, x, channels, sums, stride, isFirst); break;
            default: Tile<W, Rows8>(w, x, channels, sums, stride, isFirst); break;
        }
    }

    /// <summary>The register tile: up to eight rows of x, <c>[row][ChannelBlock]</c>, by one panel; the sums go on from where they were.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile<W, R>(byte* w, float* x, int channels, float* sums, nint stride, bool isFirst)
        where W : struct, IElement
        where R : struct, IRowCount
    {
        ThreeVectors a0 = default, a1 = default, a2 = default, a3 = default, a4 = default, a5 = default, a6 = default, a7 = default;
        if (!isFirst)
        {
            a0.Load(sums);
            if (R.Count > 1) a1.Load(sums + stride);
            if (R.Count > 2) a2.Load(sums + 2 * stride);
            if (R.Count > 3) a3.Load(sums + 3 * stride);
            if (R.Count > 4) a4.Load(sums + 4 * stride);
            if (R.Count > 5) a5.Load(sums + 5 * stride);
            if (R.Count > 6) a6.Load(sums + 6 * stride);
            if (R.Count > 7) a7.Load(sums + 7 * stride);
        }

        for (nint c = 0; c < channels; c++)
        {
            nint at = c * Lanes;
            Prefetch(w + at * W.Size + PrefetchBytes, Lanes * W.Size);
            V w0 = W.Load<S, V>(w, at), w1 = W.Load<S, V>(w, at + S.Width), w2 = W.Load<S, V>(w, at + 2 * S.Width);
            a0.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c]));
            if (R.Count > 1) a1.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + ChannelBlock]));
            if (R.Count > 2) a2.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 2 * ChannelBlock]));
            if (R.Count > 3) a3.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 3 * ChannelBlock]));
            if (R.Count > 4) a4.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 4 * ChannelBlock]));
            if (R.Count > 5) a5.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 5 * ChannelBlock]));
            if (R.Count > 6) a6.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 6 * ChannelBlock]));
            if (R.Count > 7) a7.MultiplyAdd(w0, w1, w2, S.Broadcast(x[c + 7 * ChannelBlock]));
        }

        a0.Store(sums);
        if (R.Count > 1) a1.Store(sums + stride);
        if (R.Count > 2) a2.Store(sums + 2 * stride);
        if (R.Count > 3) a3.Store(sums + 3 * stride);
        if (R.Count > 4) a4.Store(sums + 4 * stride);
        if (R.Count > 5) a5.Store(sums + 5 * stride);
        if (R.Count > 6) a6.Store(sums + 6 * stride);
        if (R.Count > 7) a7.Store(sums + 7 * stride);
    }

    /// <summary>Asks for the cache lines of a stretch that comes soon: one stream alone is read slower than memory could give it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Prefetch(byte* from, int bytes)
    {
        if (!Sse.IsSupported) return;
        Sse.Prefetch0(from);
        if (bytes > 64) Sse.Prefetch0(from + 64);
    }

    /// <summary>A row's sums for one panel, or the panel's weights of one input, in registers.</summary>
    private struct ThreeVectors(V a, V b, V c)
    {
        private V _a = a, _b = b, _c = c;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Load(float* from) => (_a, _b, _c) = (S.Load(from), S.Load(from + S.Width), S.Load(from + 2 * S.Width));

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void MultiplyAdd(V w0, V w1, V w2, V x)
        {
            _a = S.MultiplyAdd(w0, x, _a);
            _b = S.MultiplyAdd(w1, x, _b);
            _c = S.MultiplyAdd(w2, x, _c);
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void MultiplyAdd(ThreeVectors weights, V x) => MultiplyAdd(weights._a, weights._b, weights._c, x);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public readonly void Store(float* to)
        {
            S.Store(to, _a);
            S.Store(to + S.Width, _b);
            S.Store(to + 2 * S.Width, _c);
        }
    }
}

/// <summary>A number of rows as a type, so that a tile has no more registers and branches than it needs.</summary>
internal interface IRowCount
{
    static abstract int Count { get; }
}

internal readonly struct Rows1 : IRowCount { public static int Count => 1; }

internal readonly struct Rows2 : IRowCount { public static int Count => 2; }

internal readonly struct Rows3 : IRowCount { public static int Count => 3; }

internal readonly struct Rows4 : IRowCount { public static int Count => 4; }

internal readonly struct Rows5 : IRowCount { public static int Count => 5; }

internal readonly struct Rows6 : IRowCount { public static int Count => 6; }

internal readonly struct Rows7 : IRowCount { public static int Count => 7; }

internal readonly struct Rows8 : IRowCount { public static int Count => 8; }
