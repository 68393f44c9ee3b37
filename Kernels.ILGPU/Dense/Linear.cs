using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private readonly LinearKernels<float> _linear = new();
    private readonly LinearKernels<ushort> _linearBFloat16 = new(), _linearFloat16 = new();
    private Action<AcceleratorStream, KernelConfig, Rows, Rows, Rows, Rows, LinearShape>? _linearInPlace;

    /// <inheritdoc/>
    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        var packed = (IlgpuWeightMatrix)weight;
        Rows x = Floats(input, 0), y = Output(output), b = bias is null ? x : Floats(bias, 1);     // without a bias it is not read
        var shape = new LinearShape(input.Rows, weight.Inputs, weight.Outputs, bias is null ? 0 : 1);
        if (packed.InPlace is { } tensor)
            Load(ref _linearInPlace, LinearInPlaceKernel)(Stream, LinearGrid(shape, 1), x, Floats(tensor, 2), b, y, shape);
        else if (packed.Type == ElementType.UInt8)
            LinearBlocks(x, packed, b, y, shape);
        else if (packed.Type == ElementType.Float32)
            Multiply<float, Float32Weight>(_linear, x, packed.Data.Cast<float>(), b, y, shape);
        else if (packed.Type == ElementType.BFloat16)
            Multiply<ushort, BFloat16Weight>(_linearBFloat16, x, packed.Data.Cast<ushort>(), b, y, shape);
        else
            Multiply<ushort, Float16Weight>(_linearFloat16, x, packed.Data.Cast<ushort>(), b, y, shape);
    }

    private void Multiply<T, TStored>(LinearKernels<T> kernels, Rows input, ArrayView<T> weight, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        if (shape.Rows == 1) Load(ref kernels.One, LinearKernel<Column1, T, TStored>)(Stream, LinearGrid(shape, 1), input, weight, bias, output, shape);
        else if (shape.Rows <= 8) Load(ref kernels.Few, LinearKernel<Column8, T, TStored>)(Stream, LinearGrid(shape, 8), input, weight, bias, output, shape);
        else Load(ref kernels.Many, LinearKernel<Column32, T, TStored>)(Stream, LinearGrid(shape, 32), input, weight, bias, output, shape);
    }

    private KernelConfig LinearGrid(LinearShape shape, int rows)
    {
        int lanes = Lanes(shape.Outputs);
        return new(new Index3D((shape.Outputs + lanes - 1) / lanes, (shape.Rows + rows - 1) / rows, 1), new Index3D(lanes, 1, 1));
    }

    /// <summary>Threads of a group whose lanes run over channels: whole warps, as many as the channels need, no more than the device takes.</summary>
    private int Lanes(int channels) => Math.Min(Math.Min(256, Accelerator.MaxNumThreadsPerGroup), (channels + 31) / 32 * 32);

    // A group a tile of rows and 256 outputs, a thread an output: neighbouring outputs lie side by side in the weight. Each output is one chain over the inputs in order, the bias last.
    private static void LinearKernel<TColumn, T, TStored>(Rows input, ArrayView<T> weight, Rows bias, Rows output, LinearShape shape)
        where TColumn : unmanaged, IColumn<TColumn> where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        ArrayView<float> tile = SharedMemory.Allocate<float>(Tile.Size);
        int column = Grid.IdxX * Group.DimX + Group.IdxX, read = Math.Min(column, shape.Outputs - 1);
        int row = Grid.IdxY * TColumn.Rows, rows = Math.Min(TColumn.Rows, shape.Rows - row), whole = shape.Inputs - shape.Inputs % Tile.Steps;
        TColumn sums = default;
        for (int i = 0; i < whole; i += Tile.Steps)
        {
            LinearFill<TColumn>(tile, input, row, rows, i, Tile.Steps);
            Group.Barrier();
            sums = Tile.Whole<TColumn, T, TStored>(sums, tile, weight, (long)i * shape.Outputs + read, shape.Outputs);
            Group.Barrier();
        }

        LinearFill<TColumn>(tile, input, row, rows, whole, shape.Inputs - whole);
        Group.Barrier();
        sums = Tile.Part<TColumn, T, TStored>(sums, tile, weight, (long)whole * shape.Outputs + read, shape.Outputs, shape.Inputs - whole);
        if (shape.HasBias != 0) sums = TColumn.Sum(sums, bias[read, 0]);
        TColumn.Store(sums, output.Data, row * output.Stride + column, output.Stride, column < shape.Outputs ? FirstRows(rows) : 0);
    }

    /// <summary>The tile's inputs, <c>[step][row]</c>; rows past the last one repeat it.</summary>
    private static void LinearFill<TColumn>(ArrayView<float> tile, Rows input, int row, int rows, int from, int steps) where TColumn : unmanaged, IColumn<TColumn>
    {
        for (int t = Group.IdxX; t < steps * TColumn.Rows; t += Group.DimX) tile[t] = input[row + Math.Min(t % TColumn.Rows, rows - 1), from + t / TColumn.Rows];
    }

    /// <summary>A mask of so many rows.</summary>
    private static uint FirstRows(int count) => count >= 32 ? 0xFFFFFFFF : (1u << count) - 1;

    // A row-major weight as it lies, a thread an output of one row: the same chain, read across.
    private static void LinearInPlaceKernel(Rows input, Rows weight, Rows bias, Rows output, LinearShape shape)
    {
        int column = Grid.IdxX * Group.DimX + Group.IdxX, row = Grid.IdxY;
        if (column >= shape.Outputs) return;
        float sum = 0;
        for (int i = 0; i < shape.Inputs; i++) sum = Fused.MultiplyAdd(input[row, i], weight[column, i], sum);
        output[row, column] = shape.HasBias != 0 ? sum + bias[column, 0] : sum;
    }

    /// <summary>The launchers of one stored type: one row, a few, many.</summary>
    private sealed class LinearKernels<T> where T : unmanaged
    {
        public Action<AcceleratorStream, KernelConfig, Rows, ArrayView<T>, Rows, Rows, LinearShape>? One, Few, Many;
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
