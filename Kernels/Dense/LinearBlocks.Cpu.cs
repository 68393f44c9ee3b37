using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>How a block of a panel lies in memory: a scale for each lane, then the integers of one input after the other.</summary>
internal unsafe interface IPackedBlock
{
    /// <summary>Bytes of a block.</summary>
    /// <param name="channels">Its inputs.</param>
    /// <param name="lanes">Outputs of the panel.</param>
    static abstract int Bytes(int channels, int lanes);

    static abstract void Set(byte* block, int channel, int lane, int lanes, int integer);

    /// <summary>Integers of neighbouring outputs, not yet scaled.</summary>
    static abstract V Load<S, V>(byte* block, nint channel, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged;
}

internal readonly unsafe struct Int8Block : IPackedBlock
{
    public static int Bytes(int channels, int lanes) => lanes * (sizeof(float) + channels);

    public static void Set(byte* block, int channel, int lane, int lanes, int integer) => block[(sizeof(float) + channel) * lanes + lane] = (byte)integer;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<S, V>(byte* block, nint channel, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt8((sbyte*)block + (sizeof(float) + channel) * lanes + lane);
}

/// <summary>A byte holds two inputs of the same output, the first in its lower half, both with 8 added.</summary>
internal readonly unsafe struct Int4Block : IPackedBlock
{
    public static int Bytes(int channels, int lanes) => lanes * (sizeof(float) + (channels + 1) / 2);

    public static void Set(byte* block, int channel, int lane, int lanes, int integer)
    {
        byte* pair = block + (sizeof(float) + channel / 2) * lanes + lane;
        *pair = channel % 2 == 0 ? (byte)(integer + 8) : (byte)(*pair | ((integer + 8) << 4));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static V Load<S, V>(byte* block, nint channel, int lane, int lanes) where S : struct, ISimd<V> where V : unmanaged =>
        S.LoadInt4(block + (sizeof(float) + (channel >> 1)) * lanes + lane, (int)(channel & 1) << 2);
}

// A weight is scale · integer, rounded to float32, wherever it is computed: beside the chain for one row, once for a panel's rows where there are several. The chains are those of every packed weight.
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
    private static void BlockChains<B>(byte* block, float* x, int channels, float* sums) where B : struct, IPackedBlock
    {
        ThreeVectors sum = default;
        for (; channels > 0; channels -= WeightBlocks.Size, block += B.Bytes(WeightBlocks.Size, Lanes), x += WeightBlocks.Size)
        {
            V s0 = S.Load((float*)block), s1 = S.Load((float*)block + S.Width), s2 = S.Load((float*)block + 2 * S.Width);
            int count = Math.Min(channels, WeightBlocks.Size);
            for (nint c = 0; c < count; c++)
            {
                V w0 = S.Multiply(s0, B.Load<S, V>(block, c, 0, Lanes)), w1 = S.Multiply(s1, B.Load<S, V>(block, c, S.Width, Lanes));
                sum.MultiplyAdd(w0, w1, S.Multiply(s2, B.Load<S, V>(block, c, 2 * S.Width, Lanes)), S.Broadcast(x[c]));
            }
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
                V s0 = S.Load((float*)block), s1 = S.Load((float*)block + S.Width), s2 = S.Load((float*)block + 2 * S.Width);
                int count = Math.Min(channels, WeightBlocks.Size);
                for (nint c = 0; c < count; c++, to += Lanes)
                {
                    S.Store(to, S.Multiply(s0, B.Load<S, V>(block, c, 0, Lanes)));
                    S.Store(to + S.Width, S.Multiply(s1, B.Load<S, V>(block, c, S.Width, Lanes)));
                    S.Store(to + 2 * S.Width, S.Multiply(s2, B.Load<S, V>(block, c, 2 * S.Width, Lanes)));
                }
            }

            return (byte*)scratch;
        }
    }
}
