using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>How a block of a panel lies in memory: a scale for each lane, then the integers of one input after the other, <c>[input][lane]</c>.</summary>
internal unsafe interface IPackedBlock
{
    /// <summary>Bytes of a block.</summary>
    /// <param name="inputs">Its inputs.</param>
    /// <param name="lanes">Outputs of the panel.</param>
    static abstract int Bytes(int inputs, int lanes);

    static abstract void Set(byte* block, int input, int lane, int lanes, int integer);

    /// <summary>Integers of neighbouring outputs for input 2 · pair, not yet scaled.</summary>
    static abstract V Even<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged;

    /// <summary>The same for input 2 · pair + 1.</summary>
    static abstract V Odd<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged;
}

internal readonly unsafe struct Int8Block : IPackedBlock
{
    public static int Bytes(int inputs, int lanes) => lanes * (sizeof(float) + inputs);

    public static void Set(byte* block, int input, int lane, int lanes, int integer) => block[(sizeof(float) + input) * lanes + lane] = (byte)integer;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Even<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt8((sbyte*)block + (sizeof(float) + 2 * pair) * lanes + lane);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Odd<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt8((sbyte*)block + (sizeof(float) + 2 * pair) * lanes + lanes + lane);
}

/// <summary>A byte holds an even input and, in its upper half, the next one of the same output.</summary>
internal readonly unsafe struct Int4Block : IPackedBlock
{
    public static int Bytes(int inputs, int lanes) => lanes * (sizeof(float) + (inputs + 1) / 2);

    public static void Set(byte* block, int input, int lane, int lanes, int integer)
    {
        byte* both = block + (sizeof(float) + input / 2) * lanes + lane;
        *both = (byte)(input % 2 == 0 ? integer & 15 : *both | (integer << 4));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Even<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt4Lower((sbyte*)block + (sizeof(float) + pair) * lanes + lane);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Odd<S, V>(byte* block, nint pair, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt4Upper((sbyte*)block + (sizeof(float) + pair) * lanes + lane);
}

// A weight is scale · integer, rounded to float32, wherever it is computed: beside the chain for one row, once for all rows of a panel where there are several. The chains are those of every packed weight.
internal sealed unsafe partial class CpuKernels<S, V>
{
    private void BlockProduct<B>(in LinearOperands operands, int firstPanel, int endPanel, int firstRow, int endRow, CpuThreads threads, int worker)
        where B : struct, IPackedBlock
    {
        if (endRow - firstRow > 1)
        {
            ManyRows<UnpackedPanels<B>, Float32Element>(operands, firstPanel, endPanel, firstRow, endRow, threads, worker);
            return;
        }

        CpuWeightMatrix weight = operands.Weight;
        float* x = operands.Input.Row(firstRow, this, threads.Scratch(worker, weight.Inputs));
        float* sums = stackalloc float[Lanes];
        for (int panel = firstPanel; panel < endPanel; panel++)
        {
            BlockChains<B>(weight.Pointer + panel * weight.PanelBytes, x, weight.Inputs, sums);
            int first = panel * Lanes;
            Finish(sums, operands.Bias, first, Math.Min(Lanes, weight.Outputs - first), operands.Output + firstRow * operands.OutputStride);
        }
    }

    /// <summary>One row by one panel.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void BlockChains<B>(byte* block, float* x, int inputs, float* sums) where B : struct, IPackedBlock
    {
        ThreeVectors sum = default;
        for (; inputs > 0; inputs -= WeightBlocks.Size, block += B.Bytes(WeightBlocks.Size, Lanes), x += WeightBlocks.Size)
        {
            var scales = new BlockScales((float*)block);
            nint pairs = Math.Min(inputs, WeightBlocks.Size) / 2;
            for (nint i = 0; i < pairs; i++)
            {
                ThreeVectors even = scales.Even<B>(block, i), odd = scales.Odd<B>(block, i);
                sum.MultiplyAdd(even, S.Broadcast(x[2 * i]));
                sum.MultiplyAdd(odd, S.Broadcast(x[2 * i + 1]));
            }

            if (inputs < WeightBlocks.Size && inputs % 2 != 0) sum.MultiplyAdd(scales.Even<B>(block, pairs), S.Broadcast(x[2 * pairs]));
        }

        sum.Store(sums);
    }

    private readonly struct UnpackedPanels<B> : IPanels where B : struct, IPackedBlock
    {
        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public static byte* Channels(CpuWeightMatrix weight, int panel, int first, int channels, float* scratch)
        {
            byte* block = weight.Pointer + panel * weight.PanelBytes + (nint)(first / WeightBlocks.Size) * B.Bytes(WeightBlocks.Size, Lanes);
            float* to = scratch;
            for (; channels > 0; channels -= WeightBlocks.Size, block += B.Bytes(WeightBlocks.Size, Lanes))
            {
                var scales = new BlockScales((float*)block);
                nint pairs = Math.Min(channels, WeightBlocks.Size) / 2;
                for (nint i = 0; i < pairs; i++, to += 2 * Lanes)
                {
                    ThreeVectors even = scales.Even<B>(block, i), odd = scales.Odd<B>(block, i);
                    even.Store(to);
                    odd.Store(to + Lanes);
                }

                if (channels < WeightBlocks.Size && channels % 2 != 0) scales.Even<B>(block, pairs).Store(to);
            }

            return (byte*)scratch;
        }
    }

    /// <summary>The scales of a block, in registers.</summary>
    private readonly struct BlockScales(float* from)
    {
        private readonly V _a = S.Load(from), _b = S.Load(from + S.Width), _c = S.Load(from + 2 * S.Width);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public ThreeVectors Even<B>(byte* block, nint pair) where B : struct, IPackedBlock =>
            new(S.Multiply(_a, B.Even<S, V>(block, pair, 0, Lanes)), S.Multiply(_b, B.Even<S, V>(block, pair, S.Width, Lanes)), S.Multiply(_c, B.Even<S, V>(block, pair, 2 * S.Width, Lanes)));

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public ThreeVectors Odd<B>(byte* block, nint pair) where B : struct, IPackedBlock =>
            new(S.Multiply(_a, B.Odd<S, V>(block, pair, 0, Lanes)), S.Multiply(_b, B.Odd<S, V>(block, pair, S.Width, Lanes)), S.Multiply(_c, B.Odd<S, V>(block, pair, 2 * S.Width, Lanes)));
    }
}
