using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Util;

namespace Treeline.Kernels.ILGPU;

// Nodes of a verified tree past their block's end, and the norms: one thread, or one small group, a token and head.
public sealed partial class IlgpuBackend
{
    private void Cross(in FlashCall call, ArrayView<int> nodes, int count) => Load(ref _flash.Crossing, FlashCrossingKernel)(
        Stream, Groups(count, call.Spec.QueryHeads, 1, RowGroup.Size), nodes, call.Output, call.Terms, call.Step, call.Memory, call.Scratch);

    // A group a node and query head. S past the completed groups of its path is built again for it, channel by channel: one chain from the old S through the path's rows, the same bits as S moved there.
    private static void FlashCrossingKernel(ArrayView<int> nodes, Rows output, FlashTerms terms, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        ArrayView<float> weights = SharedMemory.Allocate<float>(RowGroup.Size);
        int node = Grid.IdxX * FlashTile.CrossingInts, token = nodes[node], tileRows = nodes[node + 2], head = Grid.IdxY, kv = memory.KeyValueHead(head), lane = Group.IdxX, G = memory.GroupSize;
        int entry = step.Entry(token), slot = step.Slot(entry), length = step.Length(entry), position = length + step.Depth(token), start = position - position % G;
        var path = new FlashPath(step, token, length, length - length % G, G);
        long q = memory.Query(nodes[node + 1], tileRows, head) + nodes[node + 3];
        long sums = memory.Sum(nodes[node + 1], tileRows, head) + nodes[node + 3] * memory.ValueDim;
        for (int e = lane; e < memory.ValueDim; e += RowGroup.Size) scratch.LocalSums[sums + e] = 0;
        int end = memory.Local != 0 ? position : start - 1;
        for (int first = start; first <= end; first += RowGroup.Size)
        {
            int count = XMath.Min(RowGroup.Size, end + 1 - first);
            if (lane < count)
            {
                long k = memory.Key(slot, path.Place(first + lane), kv);
                float dot = 0;
                for (int c = 0; c < memory.HeadDim; c++) dot = Fused.MultiplyAdd(scratch.Queries[q + c * tileRows], memory.Keys[k + c], dot);
                weights[lane] = memory.Local == (int)LocalKind.Relu2 ? Relu2Weight.Apply(dot) : YosoWeight.Apply(dot);
            }

            Group.Barrier();
            for (int e = lane; e < memory.ValueDim; e += RowGroup.Size)
            {
                float local = scratch.LocalSums[sums + e];
                for (int j = 0; j < count; j++) local = Fused.MultiplyAdd(weights[j], memory.Values[memory.Value(slot, path.Place(first + j), kv) + e], local);
                scratch.LocalSums[sums + e] = local;
            }

            Group.Barrier();
        }

        for (int e = lane; e < memory.ValueDim; e += RowGroup.Size)
        {
            float local = scratch.LocalSums[sums + e], global = 0, conv = 0;
            for (int c = 0; c < (memory.Global != 0 ? memory.HeadDim : 0); c++)
            {
                float s = memory.State[memory.StateRow(slot, kv, c) + e];
                for (int p = path.Block; p < start; p++)
                {
                    int place = path.Place(p);
                    s = Fused.MultiplyAdd(memory.Keys[memory.Key(slot, place, kv) + c], memory.Values[memory.Value(slot, place, kv) + e], s);
                }

                global = Fused.MultiplyAdd(scratch.Queries[q + c * tileRows], s, global);
            }

            for (int t = 0; t < memory.Taps; t++)
                conv = Fused.MultiplyAdd(terms.Taps[head * memory.Taps + t], memory.Values[memory.Value(slot, path.Place(position - t), kv) + e], conv);
            FlashJoined(output, terms, memory, scratch, token, head, e, local, global, conv);
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
            for (int e = 0; e < dv; e++) squares = Fused.MultiplyAdd(scratch.Terms.Global[at + e], scratch.Terms.Global[at + e], squares);
            globalNorm = memory.NormEpsilon + XMath.Sqrt(squares);
        }

        squares = 0;
        for (int e = 0; e < dv; e++)
        {
            float global = memory.Norm == (int)OutputNorm.Global ? FlashNumbers.Divided(scratch.Terms.Global[at + e], globalNorm) : scratch.Terms.Global[at + e];
            float x = Fused.MultiplyAdd(alpha, global, scratch.Terms.Local[at + e]);
            if (memory.Norm == (int)OutputNorm.Castling) x = 0.5f * value[token, fromValue + e] + x / XMath.PI;
            squares = Fused.MultiplyAdd(x, x, squares);
            output[token, from + e] = x;
        }

        float norm = XMath.Sqrt(squares) + (memory.Norm == (int)OutputNorm.Together ? memory.NormEpsilon : 0);
        for (int e = 0; e < dv; e++)
        {
            float x = output[token, from + e];
            output[token, from + e] = (memory.Norm == (int)OutputNorm.Global ? x : FlashNumbers.Divided(x, norm)) + scratch.Terms.Convolution[at + e];
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

/// <summary>What a local dot weighs: relu².</summary>
internal readonly struct Relu2Weight : IColumnFunction
{
    public static float Apply(float dot) => Utilities.Select(dot <= 0, 0, dot * dot);        // NaN stays
}

/// <summary>YOSO's (1 - arccos(0.98 s)/π)⁸.</summary>
internal readonly struct YosoWeight : IColumnFunction
{
    public static float Apply(float dot)
    {
        float weight = 1 - XMath.Acos(0.98f * dot) / XMath.PI;
        float square = weight * weight, fourth = square * square;
        return fourth * fourth;
    }
}

/// <summary>Scalar pieces of grouped attention.</summary>
internal static class FlashNumbers
{
    /// <summary>x / ‖x‖ of one vector, its numbers a step apart; a zero vector stays zero. Where its squares would leave float32's range it is scaled first, by a power of two.</summary>
    public static void Normalize(Rows rows, int row, int from, ArrayView<float> to, long at, int step, int count)
    {
        float scale = 1, squares;
        bool again;
        do
        {
            squares = Squares(rows, row, from, count, scale);
            again = scale == 1 && !AreNear(squares);
            if (again) scale = ScaleOf(squares);
        }
        while (again);
        float factor = Factor(squares);
        for (int c = 0; c < count; c++) to[at + c * step] = rows[row, from + c] * scale * factor;
    }

    /// <summary>Squares whose sum keeps all of float32's precision: 2^-80 to 2^80.</summary>
    public static bool AreNear(float squares) => squares >= 8.2718061e-25f && squares <= 1.2089258e24f;

    /// <summary>What others are scaled by first: 2^96 or 2^-70.</summary>
    public static float ScaleOf(float squares) => squares < 1 ? 7.9228163e28f : 8.4703295e-22f;

    /// <summary>One by the norm, of a zero vector 0.</summary>
    public static float Factor(float squares)
    {
        float norm = XMath.Sqrt(squares);
        return norm == 0 ? 0 : 1 / norm;
    }

    /// <summary>The sum of squares, in four sums by channel.</summary>
    private static float Squares(Rows rows, int row, int from, int count, float scale)
    {
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        int c = 0;
        for (; c + 4 <= count; c += 4)
        {
            float x0 = rows[row, from + c] * scale, x1 = rows[row, from + c + 1] * scale, x2 = rows[row, from + c + 2] * scale, x3 = rows[row, from + c + 3] * scale;
            s0 = Fused.MultiplyAdd(x0, x0, s0);
            s1 = Fused.MultiplyAdd(x1, x1, s1);
            s2 = Fused.MultiplyAdd(x2, x2, s2);
            s3 = Fused.MultiplyAdd(x3, x3, s3);
        }

        for (int rest = c; rest < count; rest++)
        {
            float x = rows[row, from + rest] * scale;
            s0 = Fused.MultiplyAdd(x, x, s0);
        }

        return (s0 + s1) + (s2 + s3);
    }

    /// <summary>x / norm; a zero vector stays zero.</summary>
    public static float Divided(float x, float norm) => norm == 0 ? 0 : x / norm;
}
