using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

internal abstract unsafe partial class CpuKernels
{
    /// <summary>Rows of an in-place weight that are read side by side.</summary>
    public const int InPlaceOutputs = 4;

    /// <summary>Outputs <c>first · InPlaceOutputs</c> to <c>end · InPlaceOutputs</c> of some rows, from a weight that lies row-major in memory of somebody else.</summary>
    public abstract void InPlaceProduct(in LinearOperands operands, int first, int end, int firstRow, int endRow, CpuThreads threads, int worker);
}

// Each output is 16 partial sums by channel mod 16 and a fixed tree, then the bias, whatever the number of rows and the width of the vectors.
internal sealed unsafe partial class CpuKernels<S, V>
{
    private const int InPlaceCache = 64 * 1024;             // floats of input rows that stay in the second-level cache while the weight streams by

    public override void InPlaceProduct(in LinearOperands operands, int first, int end, int firstRow, int endRow, CpuThreads threads, int worker)
    {
        switch (operands.Weight.Type)
        {
            case ElementType.BFloat16: InPlaceProduct<BFloat16Element>(operands, first, end, firstRow, endRow, threads, worker); break;
            case ElementType.Float16: InPlaceProduct<Float16Element>(operands, first, end, firstRow, endRow, threads, worker); break;
            default: InPlaceProduct<Float32Element>(operands, first, end, firstRow, endRow, threads, worker); break;
        }
    }

    private void InPlaceProduct<W>(in LinearOperands operands, int first, int end, int firstRow, int endRow, CpuThreads threads, int worker) where W : struct, IElement
    {
        CpuWeightMatrix weight = operands.Weight;
        int padded = (weight.Inputs + 15) & ~15;
        int atOnce = Math.Clamp(InPlaceCache / padded, 4, endRow - firstRow + 3) & ~3;
        float* x = threads.Scratch(worker, (nint)atOnce * padded);
        byte* rest = stackalloc byte[InPlaceOutputs * 16 * sizeof(float)];
        for (int row = firstRow; row < endRow; row += atOnce)
        {
            int rows = Math.Min(atOnce, endRow - row);
            for (int r = 0; r < rows; r++)
            {
                operands.Input.Copy(row + r, 0, weight.Inputs, this, x + (nint)r * padded);
                new Span<float>(x + (nint)r * padded + weight.Inputs, padded - weight.Inputs).Clear();
            }

            for (int output = first * InPlaceOutputs; output < Math.Min(end * InPlaceOutputs, weight.Outputs); output += InPlaceOutputs)
            {
                // Past the last row the last one is read again, and its result dropped.
                int outputs = Math.Min(InPlaceOutputs, weight.Outputs - output);
                byte* w0 = weight.Pointer + output * weight.RowStride * W.Size;
                byte* w1 = w0 + Math.Min(1, outputs - 1) * weight.RowStride * W.Size;
                byte* w2 = w0 + Math.Min(2, outputs - 1) * weight.RowStride * W.Size;
                byte* w3 = w0 + Math.Min(3, outputs - 1) * weight.RowStride * W.Size;
                var four = new FourRows(w0, w1, w2, w3, weight.Inputs);
                four.CopyRest<W>(rest);
                for (int r = 0; r < rows; r += 4)
                    InPlaceTile<W>(operands, four, x + (nint)r * padded, padded, output, outputs, row + r, Math.Min(4, rows - r));
            }
        }
    }

    private static void InPlaceTile<W>(in LinearOperands operands, in FourRows w, float* x, nint padded, int output, int outputs, int row, int rows) where W : struct, IElement
    {
        float* partial = stackalloc float[4 * InPlaceOutputs * 16];
        switch (rows)
        {
            case 1: Dots<W, Rows1>(w, x, padded, partial); break;
            case 2: Dots<W, Rows2>(w, x, padded, partial); break;
            case 3: Dots<W, Rows3>(w, x, padded, partial); break;
            default: Dots<W, Rows4>(w, x, padded, partial); break;
        }

        for (int r = 0; r < rows; r++)
        {
            float* to = operands.Output + (row + r) * operands.OutputStride + output;
            for (int o = 0; o < outputs; o++)
            {
                float sum = SumOf16(partial + (r * InPlaceOutputs + o) * 16);
                to[o] = operands.Bias is null ? sum : sum + operands.Bias[output + o];
            }
        }
    }

    /// <summary>Partial sums of up to four input rows by four weight rows, <c>[row][output][16]</c>; narrow vectors walk the channels more than once.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Dots<W, R>(in FourRows w, float* x, nint padded, float* partial)
        where W : struct, IElement
        where R : struct, IRowCount
    {
        byte* w0 = w.W0, w1 = w.W1, w2 = w.W2, w3 = w.W3;
        nint whole = w.Whole;
        for (int lane = 0; lane < 16; lane += S.Width)
        {
            FourVectors a0 = default, a1 = default, a2 = default, a3 = default;
            for (nint c = lane; c < whole; c += 16)
                Step<W, R>(w0, w1, w2, w3, c, x + c, padded, ref a0, ref a1, ref a2, ref a3);
            if (whole < padded)
                Step<W, R>(w.Rest, w.Rest + 16 * W.Size, w.Rest + 32 * W.Size, w.Rest + 48 * W.Size, lane, x + whole + lane, padded, ref a0, ref a1, ref a2, ref a3);
            a0.Store(partial + lane);
            if (R.Count > 1) a1.Store(partial + lane + 64);
            if (R.Count > 2) a2.Store(partial + lane + 128);
            if (R.Count > 3) a3.Store(partial + lane + 192);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Step<W, R>(byte* w0, byte* w1, byte* w2, byte* w3, nint c, float* x, nint padded,
        ref FourVectors a0, ref FourVectors a1, ref FourVectors a2, ref FourVectors a3)
        where W : struct, IElement
        where R : struct, IRowCount
    {
        V v0 = W.Load<S, V>(w0, c), v1 = W.Load<S, V>(w1, c), v2 = W.Load<S, V>(w2, c), v3 = W.Load<S, V>(w3, c);
        a0.MultiplyAdd(v0, v1, v2, v3, S.Load(x));
        if (R.Count > 1) a1.MultiplyAdd(v0, v1, v2, v3, S.Load(x + padded));
        if (R.Count > 2) a2.MultiplyAdd(v0, v1, v2, v3, S.Load(x + 2 * padded));
        if (R.Count > 3) a3.MultiplyAdd(v0, v1, v2, v3, S.Load(x + 3 * padded));
    }

    /// <summary>Four rows of the weight: whole groups of 16 channels where they lie, the rest as a zero-padded copy, because nothing past the rows may be read.</summary>
    private struct FourRows(byte* w0, byte* w1, byte* w2, byte* w3, int inputs)
    {
        public readonly byte* W0 = w0, W1 = w1, W2 = w2, W3 = w3;
        public readonly nint Whole = inputs & ~15;
        public byte* Rest;

        public void CopyRest<W>(byte* rest) where W : struct, IElement
        {
            Rest = rest;
            int bytes = (int)(inputs - Whole) * W.Size;
            new Span<byte>(rest, 4 * 16 * W.Size).Clear();
            new Span<byte>(W0 + Whole * W.Size, bytes).CopyTo(new Span<byte>(rest, bytes));
            new Span<byte>(W1 + Whole * W.Size, bytes).CopyTo(new Span<byte>(rest + 16 * W.Size, bytes));
            new Span<byte>(W2 + Whole * W.Size, bytes).CopyTo(new Span<byte>(rest + 32 * W.Size, bytes));
            new Span<byte>(W3 + Whole * W.Size, bytes).CopyTo(new Span<byte>(rest + 48 * W.Size, bytes));
        }
    }

    /// <summary>One input row's partial sums for four outputs, in registers.</summary>
    private struct FourVectors
    {
        private V _a, _b, _c, _d;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void MultiplyAdd(V w0, V w1, V w2, V w3, V x)
        {
            _a = S.MultiplyAdd(w0, x, _a);
            _b = S.MultiplyAdd(w1, x, _b);
            _c = S.MultiplyAdd(w2, x, _c);
            _d = S.MultiplyAdd(w3, x, _d);
        }

        /// <summary>Each output's lanes, 16 apart.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public readonly void Store(float* to)
        {
            S.Store(to, _a);
            S.Store(to + 16, _b);
            S.Store(to + 32, _c);
            S.Store(to + 48, _d);
        }
    }
}
