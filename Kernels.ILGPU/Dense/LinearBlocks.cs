using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int BlockRows = 8;                        // rows of the input that a thread multiplies with what it has loaded
    private const int BlockColumns = 32;                    // threads of a group: neighbours take neighbouring outputs

    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<byte>, ArrayView<float>, Rows, Rows, LinearShape>? _int8Row, _int8Rows, _int4Row, _int4Rows;

    /// <summary>A product with integers and their scales.</summary>
    private void LinearBlocks(Rows input, IlgpuWeightMatrix weight, Rows bias, Rows output, LinearShape shape)
    {
        int rows = shape.Rows == 1 ? 1 : BlockRows;
        var grid = new KernelConfig(new Index3D((shape.Outputs + BlockColumns - 1) / BlockColumns, (shape.Rows + rows - 1) / rows, 1), new Index3D(BlockColumns, 1, 1));
        switch (weight.Form, rows)
        {
            case (WeightForm.Int8, 1): Load(ref _int8Row, LinearBlocksRowKernel<Int8Weight>)(Stream, grid, input, weight.Data, weight.Scales, bias, output, shape); break;
            case (WeightForm.Int8, _): Load(ref _int8Rows, LinearBlocksKernel<Int8Weight>)(Stream, grid, input, weight.Data, weight.Scales, bias, output, shape); break;
            case (_, 1): Load(ref _int4Row, LinearBlocksRowKernel<Int4Weight>)(Stream, grid, input, weight.Data, weight.Scales, bias, output, shape); break;
            default: Load(ref _int4Rows, LinearBlocksKernel<Int4Weight>)(Stream, grid, input, weight.Data, weight.Scales, bias, output, shape); break;
        }
    }

    // One thread an output of one row: a chain over the inputs in index order, the bias last. A weight is scale · integer, rounded to float32.
    private static void LinearBlocksRowKernel<TWeight>(Rows input, ArrayView<byte> weight, ArrayView<float> scales, Rows bias, Rows output, LinearShape shape)
        where TWeight : struct, IBlockWeight
    {
        int column = Grid.IdxX * BlockColumns + Group.IdxX, row = Grid.IdxY;
        if (column >= shape.Outputs) return;
        float sum = 0;
        for (int first = 0; first < shape.Inputs; first += WeightBlocks.Size)
        {
            float scale = scales[(long)(first / WeightBlocks.Size) * shape.Outputs + column];
            int end = Math.Min(first + WeightBlocks.Size, shape.Inputs);
            for (int i = first; i < end; i++)
                sum = Fused.MultiplyAdd(input[row, i], scale * TWeight.Integer(weight, i, column, shape.Outputs), sum);
        }

        output[row, column] = shape.HasBias != 0 ? sum + bias[column, 0] : sum;
    }

    // The same chains for eight rows at once; rows past the end repeat the last one and are not written.
    private static void LinearBlocksKernel<TWeight>(Rows input, ArrayView<byte> weight, ArrayView<float> scales, Rows bias, Rows output, LinearShape shape)
        where TWeight : struct, IBlockWeight
    {
        int column = Grid.IdxX * BlockColumns + Group.IdxX, row = Grid.IdxY * BlockRows, last = shape.Rows - 1;
        if (column >= shape.Outputs) return;
        int r1 = Math.Min(row + 1, last), r2 = Math.Min(row + 2, last), r3 = Math.Min(row + 3, last), r4 = Math.Min(row + 4, last), r5 = Math.Min(row + 5, last), r6 = Math.Min(row + 6, last), r7 = Math.Min(row + 7, last);
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
        for (int first = 0; first < shape.Inputs; first += WeightBlocks.Size)
        {
            float scale = scales[(long)(first / WeightBlocks.Size) * shape.Outputs + column];
            int end = Math.Min(first + WeightBlocks.Size, shape.Inputs);
            for (int i = first; i < end; i++)
            {
                float w = scale * TWeight.Integer(weight, i, column, shape.Outputs);
                s0 = Fused.MultiplyAdd(input[row, i], w, s0);
                s1 = Fused.MultiplyAdd(input[r1, i], w, s1);
                s2 = Fused.MultiplyAdd(input[r2, i], w, s2);
                s3 = Fused.MultiplyAdd(input[r3, i], w, s3);
                s4 = Fused.MultiplyAdd(input[r4, i], w, s4);
                s5 = Fused.MultiplyAdd(input[r5, i], w, s5);
                s6 = Fused.MultiplyAdd(input[r6, i], w, s6);
                s7 = Fused.MultiplyAdd(input[r7, i], w, s7);
            }
        }

        float b = shape.HasBias != 0 ? bias[column, 0] : 0;
        Store(output, row, column, s0, b, shape);
        Store(output, row + 1, column, s1, b, shape);
        Store(output, row + 2, column, s2, b, shape);
        Store(output, row + 3, column, s3, b, shape);
        Store(output, row + 4, column, s4, b, shape);
        Store(output, row + 5, column, s5, b, shape);
        Store(output, row + 6, column, s6, b, shape);
        Store(output, row + 7, column, s7, b, shape);
    }

    private static void Store(Rows output, int row, int column, float sum, float bias, LinearShape shape)
    {
        if (row < shape.Rows) output[row, column] = shape.HasBias != 0 ? sum + bias : sum;
    }
}

/// <summary>How an integer of a packed weight is read.</summary>
internal interface IBlockWeight
{
    static abstract int Integer(ArrayView<byte> weight, int input, int column, int outputs);
}

internal readonly struct Int8Weight : IBlockWeight
{
    public static int Integer(ArrayView<byte> weight, int input, int column, int outputs) => (sbyte)weight[(long)input * outputs + column];
}

internal readonly struct Int4Weight : IBlockWeight
{
    public static int Integer(ArrayView<byte> weight, int input, int column, int outputs)
    {
        int both = weight[(long)(input >> 1) * outputs + column], half = ((input & 1) == 0 ? both : both >> 4) & 15;
        return (half ^ 8) - 8;                              // the half's own sign
    }
}
