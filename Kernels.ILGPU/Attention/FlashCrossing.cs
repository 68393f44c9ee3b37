using global::ILGPU;
using global::ILGPU.Algorithms;

namespace Treeline.Kernels.ILGPU;

// Nodes of a verified tree past their block's end, and the norms: one thread, or one small group, a token and head.
public sealed partial class IlgpuBackend
{
    private void Cross(in FlashCall call, ArrayView<int> tokens) => Load(ref _flash.Crossing, FlashCrossingKernel)(
        Stream, new(new Index3D((int)tokens.Length, call.Spec.QueryHeads, 1), new Index3D(RowGroup.Size, 1, 1)), tokens, call.Output, call.Terms, call.Step, call.Memory, call.Scratch);

    // A group a node and query head. S past the completed groups of its path is built again for it, channel by channel: one chain from the old S through the path's rows, the same bits as S moved there.
    private static void FlashCrossingKernel(ArrayView<int> tokens, Rows output, FlashTerms terms, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        ArrayView<float> weights = SharedMemory.Allocate<float>(RowGroup.Size);
        int token = tokens[Grid.IdxX], head = Grid.IdxY, kv = memory.KeyValueHead(head), lane = Group.IdxX, G = memory.GroupSize;
        int entry = step.Entry(token), slot = step.Slot(entry), length = step.Length(entry), position = length + step.Depth(token), start = position - position % G;
        var path = new FlashPath(step, token, length, length - length % G, G);
        long q = ((long)token * memory.QueryHeads + head) * memory.HeadDim;
        long at = token * (long)memory.QueryHeads * memory.ValueDim + head * memory.ValueDim;
        for (int e = lane; e < memory.ValueDim; e += RowGroup.Size) scratch.Local[at + e] = 0;
        int end = memory.Local != 0 ? position : start - 1;
        for (int first = start; first <= end; first += RowGroup.Size)
        {
            int count = XMath.Min(RowGroup.Size, end + 1 - first);
            if (lane < count)
            {
                long k = memory.Key(slot, path.Place(first + lane), kv);
                float dot = 0;
                for (int c = 0; c < memory.HeadDim; c++) dot = Fused.MultiplyAdd(scratch.Queries[q + c], memory.Keys[k + c], dot);
                weights[lane] = LocalWeight.Apply(dot, memory.Local);
            }

            Group.Barrier();
            for (int e = lane; e < memory.ValueDim; e += RowGroup.Size)
            {
                float local = scratch.Local[at + e];
                for (int j = 0; j < count; j++) local = Fused.MultiplyAdd(weights[j], memory.Values[memory.Value(slot, path.Place(first + j), kv) + e], local);
                scratch.Local[at + e] = local;
            }

            Group.Barrier();
        }

        for (int e = lane; e < memory.ValueDim; e += RowGroup.Size)
        {
            float local = scratch.Local[at + e], global = 0, conv = 0;
            for (int c = 0; c < (memory.Global != 0 ? memory.HeadDim : 0); c++)
            {
                float s = memory.State[memory.StateRow(slot, kv, c) + e];
                for (int p = path.Block; p < start; p++)
                {
                    int place = path.Place(p);
                    s = Fused.MultiplyAdd(memory.Keys[memory.Key(slot, place, kv) + c], memory.Values[memory.Value(slot, place, kv) + e], s);
                }

                global = Fused.MultiplyAdd(scratch.Queries[q + c], s, global);
            }

            for (int t = 0; t < memory.Taps; t++)
                conv = Fused.MultiplyAdd(terms.Taps[head * memory.Taps + t], memory.Values[memory.Value(slot, path.Place(position - t), kv) + e], conv);
            if (memory.Norm == 0) output[token, head * memory.ValueDim + e] = Fused.MultiplyAdd(memory.Alpha(terms.Alpha), global, local) + conv;
            else
            {
                scratch.Global[at + e] = global;
                scratch.Convolution[at + e] = conv;
            }
        }
    }

    // One thread a token and query head: the norms run over the head's channels, in order.
    private static void FlashJoinKernel(Index1D index, Rows output, Rows value, FlashTerms terms, FlashMemory memory, FlashScratch scratch)
    {
        int dv = memory.ValueDim, token = index / memory.QueryHeads, head = index % memory.QueryHeads, from = head * dv, fromValue = memory.KeyValueHead(head) * dv;
        long at = (long)token * memory.QueryHeads * dv + from;
        float alpha = memory.Alpha(terms.Alpha), globalNorm = 1, squares = 0;
        if (memory.Norm == (int)OutputNorm.Global)
        {
            for (int e = 0; e < dv; e++) squares = Fused.MultiplyAdd(scratch.Global[at + e], scratch.Global[at + e], squares);
            globalNorm = memory.NormEpsilon + XMath.Sqrt(squares);
        }

        squares = 0;
        for (int e = 0; e < dv; e++)
        {
            float global = memory.Norm == (int)OutputNorm.Global ? FlashNumbers.Divided(scratch.Global[at + e], globalNorm) : scratch.Global[at + e];
            float x = Fused.MultiplyAdd(alpha, global, scratch.Local[at + e]);
            if (memory.Norm == (int)OutputNorm.Castling) x = 0.5f * value[token, fromValue + e] + x / XMath.PI;
            squares = Fused.MultiplyAdd(x, x, squares);
            output[token, from + e] = x;
        }

        float norm = XMath.Sqrt(squares) + (memory.Norm == (int)OutputNorm.Together ? memory.NormEpsilon : 0);
        for (int e = 0; e < dv; e++)
        {
            float x = output[token, from + e];
            output[token, from + e] = (memory.Norm == (int)OutputNorm.Global ? x : FlashNumbers.Divided(x, norm)) + scratch.Convolution[at + e];
        }
    }
}

/// <summary>Where the rows of one node's path lie: committed ones in the block and the window before it, the path's own behind the block.</summary>
internal readonly struct FlashPath(StepView step, int token, int length, int block, int groupSize)
{
    public readonly StepView Step = step;
    public readonly int Token = token;
    public readonly int Length = length;
    public readonly int Block = block;
    public readonly int GroupSize = groupSize;

    public int Place(int position) => position < Length ? position - Block : GroupSize + Step.Ancestor(Token, position - Length) - Step.Offset(Step.Entry(Token));
}

/// <summary>What a local dot weighs: relu², or YOSO's (1 - arccos(0.98 s)/π)⁸.</summary>
internal readonly struct LocalWeight : IColumnFunction
{
    public static float Apply(float dot, int kind)
    {
        if (kind == (int)LocalKind.Relu2) return dot > 0 ? dot * dot : XMath.IsNaN(dot) ? dot : 0;
        float weight = 1 - XMath.Acos(0.98f * dot) / XMath.PI;
        float square = weight * weight, fourth = square * square;
        return fourth * fourth;
    }
}

/// <summary>Scalar pieces of grouped attention.</summary>
internal static class FlashNumbers
{
    /// <summary>x / ‖x‖ of one vector; where its squares would leave float32's range it is scaled first, by a power of two.</summary>
    public static void Normalize(Rows rows, int row, int from, ArrayView<float> to, long at, int count)
    {
        float largest = 0, squares = 0;
        for (int c = 0; c < count; c++) largest = XMath.Max(largest, XMath.Abs(rows[row, from + c]));
        float scale = largest < 9.0949470e-13f ? 7.9228163e28f : largest > 1.0995116e12f ? 8.4703295e-22f : 1;       // below 2^-40: 2^96; above 2^40: 2^-70
        for (int c = 0; c < count; c++)
        {
            float x = rows[row, from + c] * scale;
            squares = Fused.MultiplyAdd(x, x, squares);
        }

        float norm = XMath.Sqrt(squares);
        for (int c = 0; c < count; c++) to[at + c] = Divided(rows[row, from + c] * scale, norm);
    }

    /// <summary>x / norm; a zero vector stays zero.</summary>
    public static float Divided(float x, float norm) => norm == 0 ? 0 : x / norm;
}
