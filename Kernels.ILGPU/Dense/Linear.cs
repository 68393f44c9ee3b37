using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int RowTile = 8;                          // rows of the input that a thread multiplies with what it has loaded
    private const int ColumnGroup = 32;                     // threads of a group: neighbours take neighbouring outputs

    private readonly LinearKernels _linear = new();

    /// <inheritdoc/>
    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        var packed = (IlgpuWeightMatrix)weight;
        Rows x = Floats(input, 0), y = Output(output);
        Rows b = bias is null ? default : Floats(bias, 1);
        int hasBias = bias is null ? 0 : 1;
        if (bias is null) b = x;                            // never read
        if (packed.InPlace is { } tensor)
        {
            Rows w = Floats(tensor, 2);
            var shape = new LinearShape(input.Rows, weight.Inputs, weight.Outputs, hasBias);
            Load(ref _linear.InPlace, LinearInPlaceKernel)(Stream, LinearGrid(input.Rows, weight.Outputs, 1), x, w, b, y, shape);
            return;
        }

        int tile = input.Rows == 1 ? 1 : RowTile;
        KernelConfig grid = LinearGrid(input.Rows, weight.Outputs, tile);
        var sizes = new LinearShape(input.Rows, weight.Inputs, weight.Outputs, hasBias);
        if (packed.Type == ElementType.UInt8)
        {
            LinearBlocks(x, packed, b, y, sizes);
            return;
        }

        switch (packed.Type, tile)
        {
            case (ElementType.Float32, 1):
                Load(ref _linear.Float32Row, LinearRowKernel<float, Float32Weight>)(Stream, grid, x, packed.Data.Cast<float>(), b, y, sizes);
                break;
            case (ElementType.Float32, _):
                Load(ref _linear.Float32Tile, LinearTileKernel<float, Float32Weight>)(Stream, grid, x, packed.Data.Cast<float>(), b, y, sizes);
                break;
            case (ElementType.BFloat16, 1):
                Load(ref _linear.BFloat16Row, LinearRowKernel<ushort, BFloat16Weight>)(Stream, grid, x, packed.Data.Cast<ushort>(), b, y, sizes);
                break;
            case (ElementType.BFloat16, _):
                Load(ref _linear.BFloat16Tile, LinearTileKernel<ushort, BFloat16Weight>)(Stream, grid, x, packed.Data.Cast<ushort>(), b, y, sizes);
                break;
            case (_, 1):
                Load(ref _linear.Float16Row, LinearRowKernel<ushort, Float16Weight>)(Stream, grid, x, packed.Data.Cast<ushort>(), b, y, sizes);
                break;
            default:
                Load(ref _linear.Float16Tile, LinearTileKernel<ushort, Float16Weight>)(Stream, grid, x, packed.Data.Cast<ushort>(), b, y, sizes);
                break;
        }
    }

    private static KernelConfig LinearGrid(int rows, int outputs, int tile) =>
        new(new Index3D((outputs + ColumnGroup - 1) / ColumnGroup, (rows + tile - 1) / tile, 1), new Index3D(ColumnGroup, 1, 1));

    // One thread an output of one row: a chain over the inputs in index order, the bias last. A group reads 32 neighbouring weights of an input at a time.
    private static void LinearRowKernel<T, TWeight>(Rows input, ArrayView<T> weight, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TWeight : struct, IStoredWeight<T>
    {
        int column = Grid.IdxX * ColumnGroup + Group.IdxX, row = Grid.IdxY;
        if (column >= shape.Outputs) return;
        float sum = 0;
        for (int i = 0; i < shape.Inputs; i++) sum = Fused.MultiplyAdd(input[row, i], TWeight.Load(weight[(long)i * shape.Outputs + column]), sum);
        output[row, column] = shape.HasBias != 0 ? sum + bias[column, 0] : sum;
    }

    // The same chains for eight rows at once; rows past the end repeat the last one and are not written.
    private static void LinearTileKernel<T, TWeight>(Rows input, ArrayView<T> weight, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TWeight : struct, IStoredWeight<T>
    {
        int column = Grid.IdxX * ColumnGroup + Group.IdxX, row = Grid.IdxY * RowTile, last = shape.Rows - 1;
        if (column >= shape.Outputs) return;
        int r1 = Math.Min(row + 1, last), r2 = Math.Min(row + 2, last), r3 = Math.Min(row + 3, last), r4 = Math.Min(row + 4, last), r5 = Math.Min(row + 5, last), r6 = Math.Min(row + 6, last), r7 = Math.Min(row + 7, last);
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
        for (int i = 0; i < shape.Inputs; i++)
        {
            float w = TWeight.Load(weight[(long)i * shape.Outputs + column]);
            s0 = Fused.MultiplyAdd(input[row, i], w, s0);
            s1 = Fused.MultiplyAdd(input[r1, i], w, s1);
            s2 = Fused.MultiplyAdd(input[r2, i], w, s2);
            s3 = Fused.MultiplyAdd(input[r3, i], w, s3);
            s4 = Fused.MultiplyAdd(input[r4, i], w, s4);
            s5 = Fused.MultiplyAdd(input[r5, i], w, s5);
            s6 = Fused.MultiplyAdd(input[r6, i], w, s6);
            s7 = Fused.MultiplyAdd(input[r7, i], w, s7);
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

    // A row-major weight as it lies: the same chain, read across.
    private static void LinearInPlaceKernel(Rows input, Rows weight, Rows bias, Rows output, LinearShape shape)
    {
        int column = Grid.IdxX * ColumnGroup + Group.IdxX, row = Grid.IdxY;
        if (column >= shape.Outputs) return;
        float sum = 0;
        for (int i = 0; i < shape.Inputs; i++) sum = Fused.MultiplyAdd(input[row, i], weight[column, i], sum);
        output[row, column] = shape.HasBias != 0 ? sum + bias[column, 0] : sum;
    }

    private sealed class LinearKernels
    {
        public Action<AcceleratorStream, KernelConfig, Rows, ArrayView<float>, Rows, Rows, LinearShape>? Float32Row, Float32Tile;
        public Action<AcceleratorStream, KernelConfig, Rows, ArrayView<ushort>, Rows, Rows, LinearShape>? BFloat16Row, BFloat16Tile, Float16Row, Float16Tile;
        public Action<AcceleratorStream, KernelConfig, Rows, Rows, Rows, Rows, LinearShape>? InPlace;
    }
}

/// <summary>Sizes of a product.</summary>
internal readonly struct LinearShape(int rows, int inputs, int outputs, int hasBias)
{
    public readonly int Rows = rows;
    public readonly int Inputs = inputs;
    public readonly int Outputs = outputs;
    public readonly int HasBias = hasBias;
}

/// <summary>How a packed weight's number is read.</summary>
internal interface IStoredWeight<T> where T : unmanaged
{
    static abstract float Load(T stored);
}

internal readonly struct Float32Weight : IStoredWeight<float>
{
    public static float Load(float stored) => stored;
}

internal readonly struct BFloat16Weight : IStoredWeight<ushort>
{
    public static float Load(ushort stored) => Numbers.FromBFloat16(stored);
}

internal readonly struct Float16Weight : IStoredWeight<ushort>
{
    public static float Load(ushort stored) => Numbers.FromFloat16(stored);
}
