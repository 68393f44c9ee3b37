using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int LinearPatchRows = 64, LinearPatchSteps = 256;     // what of both sides the caches keep

    private readonly LinearKernels<float> _linear = new();
    private readonly LinearKernels<ushort> _linearBFloat16 = new(), _linearFloat16 = new();
    private readonly LinearKernels<byte> _linearInt8 = new(), _linearInt4 = new();
    private Action<AcceleratorStream, Index1D, Rows, Rows, LinearShape>? _linearBias;
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<float>, long, Rows, Rows, LinearShape>? _linearInPlace;
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<ushort>, long, Rows, Rows, LinearShape>? _linearInPlaceBFloat16, _linearInPlaceFloat16;

    /// <inheritdoc/>
    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(output);
        if (output.Count == 0) return;
        var packed = (IlgpuWeightMatrix)weight;
        var shape = new LinearShape(input.Rows, weight.Inputs, weight.Outputs, bias is null ? 0 : 1);
        KernelConfig grid = LinearGrid(shape, packed);      // refused before a narrow input is widened
        Rows x = Floats(input, 0), y = Output(output), b = bias is null ? x : Floats(bias, 1);     // without a bias it is not read
        ArrayView<float> scales = packed.Scales.Length > 0 ? packed.Scales : x.Data;               // without scales they are not read
        switch (weight.Form)
        {
            case WeightForm.InPlace: MultiplyInPlace(grid, x, packed.InPlace!, b, y, shape); break;
            case WeightForm.BFloat16: Multiply<ushort, BFloat16Weight>(_linearBFloat16, grid, packed.InPanels, x, packed.Data.Cast<ushort>(), scales, b, y, shape); break;
            case WeightForm.Float16: Multiply<ushort, Float16Weight>(_linearFloat16, grid, packed.InPanels, x, packed.Data.Cast<ushort>(), scales, b, y, shape); break;
            case WeightForm.Int8: Multiply<byte, Int8Weight>(_linearInt8, grid, packed.InPanels, x, packed.Data, scales, b, y, shape); break;
            case WeightForm.Int4: Multiply<byte, Int4Weight>(_linearInt4, grid, packed.InPanels, x, packed.Data, scales, b, y, shape); break;
            case WeightForm.Float32 when _cuBlas is not null && CuBlasProduct.Takes(shape, x, y): MultiplyByCuBlas(x, packed.Data.Cast<float>(), b, y, shape); break;
            default: Multiply<float, Float32Weight>(_linear, grid, packed.InPanels, x, packed.Data.Cast<float>(), scales, b, y, shape); break;
        }
    }

    private void Multiply<T, TStored>(LinearKernels<T> kernels, KernelConfig grid, bool inPanels, Rows input, ArrayView<T> weight, ArrayView<float> scales, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        if (inPanels)
        {
            Load(ref kernels.Patches, LinearPatchesKernel<T, TStored>)(Stream, grid, input, weight, scales, bias, output, shape);
            return;
        }

        switch (LinearRows(shape))
        {
            case 1: Load(ref kernels.One, LinearKernel<Column1, T, TStored>)(Stream, grid, input, weight, scales, bias, output, shape); break;
            case 8: Load(ref kernels.Few, LinearKernel<Column8, T, TStored>)(Stream, grid, input, weight, scales, bias, output, shape); break;
            default: Load(ref kernels.Many, LinearKernel<Column32, T, TStored>)(Stream, grid, input, weight, scales, bias, output, shape); break;
        }
    }

    // The bias lies in the output before the product is added to it: the library has no bias of its own.
    private void MultiplyByCuBlas(Rows input, ArrayView<float> weight, Rows bias, Rows output, LinearShape shape)
    {
        if (shape.HasBias != 0) Load(ref _linearBias, LinearBiasKernel)(Stream, Threads((long)shape.Rows * shape.Outputs), bias, output, shape);
        try
        {
            _cuBlas!.Multiply((CudaStream)Stream, input, weight, output, shape, shape.HasBias);
        }
        catch (Exception e) when (e is CuBlasException or AcceleratorException)
        {
            throw Failed(e);
        }
    }

    private void MultiplyInPlace(KernelConfig grid, Rows input, DeviceTensor weight, Rows bias, Rows output, LinearShape shape)
    {
        long stride = weight.RowStride;
        if (weight.Type == ElementType.Float32) Load(ref _linearInPlace, LinearInPlaceKernel<float, Float32Weight>)(Stream, grid, input, Elements<float>(weight), stride, bias, output, shape);
        else if (weight.Type == ElementType.BFloat16) Load(ref _linearInPlaceBFloat16, LinearInPlaceKernel<ushort, BFloat16Weight>)(Stream, grid, input, Elements<ushort>(weight), stride, bias, output, shape);
        else Load(ref _linearInPlaceFloat16, LinearInPlaceKernel<ushort, Float16Weight>)(Stream, grid, input, Elements<ushort>(weight), stride, bias, output, shape);
    }

    /// <summary>Rows of a tile of a packed product.</summary>
    private static int LinearRows(LinearShape shape) => shape.Rows == 1 ? 1 : shape.Rows <= 8 ? 8 : 32;

    private KernelConfig LinearGrid(LinearShape shape, IlgpuWeightMatrix weight)
    {
        if (weight.InPanels) return Groups(shape.Panels * (((long)shape.Rows + LinearPatchRows - 1) / LinearPatchRows), 1, 1, 1);
        int rows = weight.Form == WeightForm.InPlace ? 1 : LinearRows(shape), lanes = Lanes(shape.Outputs);
        return Groups(((long)shape.Rows + rows - 1) / rows, ((long)shape.Outputs + lanes - 1) / lanes, 1, lanes);
    }

    /// <summary>Threads of a group whose lanes run over channels: whole warps, as many as the channels need, no more than the device takes.</summary>
    private int Lanes(int channels) => (int)Math.Min(Math.Min(256, Accelerator.MaxNumThreadsPerGroup), (channels + 31L) / 32 * 32);

    // A group a tile of rows and its lanes' outputs, a thread an output: neighbouring outputs lie side by side in the weight. Each output is one chain over the inputs in order, the bias last.
    private static void LinearKernel<TColumn, T, TStored>(Rows input, ArrayView<T> weight, ArrayView<float> scales, Rows bias, Rows output, LinearShape shape)
        where TColumn : unmanaged, IColumn<TColumn> where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        ArrayView<float> tile = SharedMemory.Allocate<float>(Tile.Size);
        int column = Grid.IdxY * Group.DimX + Group.IdxX, read = Math.Min(column, shape.Outputs - 1);
        int row = Grid.IdxX * TColumn.Rows, rows = Math.Min(TColumn.Rows, shape.Rows - row), whole = shape.Inputs - shape.Inputs % Tile.Steps;
        TColumn sums = default;
        for (int i = 0; i < whole; i += Tile.Steps)
        {
            LinearFill<TColumn>(tile, input, row, rows, i, Tile.Steps);
            Group.Barrier();
            sums = Tile.Whole<TColumn, T, TStored>(sums, tile, weight, TStored.Place(i, read, shape.Outputs), shape.Outputs, TStored.Scale(scales, i, read, shape.Outputs));
            Group.Barrier();
        }

        LinearFill<TColumn>(tile, input, row, rows, whole, shape.Inputs - whole);
        Group.Barrier();
        sums = Tile.Part<TColumn, T, TStored>(sums, tile, weight, TStored.Place(whole, read, shape.Outputs), shape.Outputs, shape.Inputs - whole,
            whole < shape.Inputs ? TStored.Scale(scales, whole, read, shape.Outputs) : 0);
        if (shape.HasBias != 0) sums = TColumn.Sum(sums, bias[read, 0]);
        TColumn.Store(sums, output.Data, row * output.Stride + column, output.Stride, column < shape.Outputs ? FirstRows(rows) : 0);
    }

    // A thread a panel of outputs and some rows, whose sums wait in the output while the next inputs are taken: the same chains.
    private static void LinearPatchesKernel<T, TStored>(Rows input, ArrayView<T> weight, ArrayView<float> scales, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        ArrayView<float> numbers = SharedMemory.Allocate<float>(LinearPatchSteps * Patch.Channels);
        int row = Grid.IdxX / shape.Panels * LinearPatchRows, rows = Math.Min(LinearPatchRows, shape.Rows - row), column = Grid.IdxX % shape.Panels * Patch.Channels, columns = Math.Min(Patch.Channels, shape.Outputs - column), i = 0;
        long to = row * output.Stride + column, panel = (long)column * TStored.Rows(shape.Inputs);
        do
        {
            int steps = Math.Min(LinearPatchSteps, shape.Inputs - i);
            Patch.Product(
                ref output.Data[to], output.Stride, ref output.Data[to], output.Stride, i, ref input.Data[row * input.Stride + i], input.Stride, 1,
                ref TStored.Panel(weight, panel + TStored.Place(i, 0, Patch.Channels), steps, numbers, scales, i, column, columns, shape.Outputs), Patch.Channels, steps, 0, rows, columns);
            i += LinearPatchSteps;
        }
        while (i < shape.Inputs);
        for (int r = 0; r < (shape.HasBias != 0 ? rows : 0); r++)
            for (int c = 0; c < columns; c++) output[row + r, column + c] += bias[column + c, 0];
    }

    /// <summary>The tile's inputs, <c>[step][row]</c>; rows past the last one repeat it.</summary>
    private static void LinearFill<TColumn>(ArrayView<float> tile, Rows input, int row, int rows, int from, int steps) where TColumn : unmanaged, IColumn<TColumn>
    {
        for (int t = Group.IdxX; t < steps * TColumn.Rows; t += Group.DimX) tile[t] = input[row + Math.Min(t % TColumn.Rows, rows - 1), from + t / TColumn.Rows];
    }

    /// <summary>A mask of so many rows.</summary>
    private static uint FirstRows(int count) => count >= 32 ? 0xFFFFFFFF : (1u << count) - 1;

    // One thread an output.
    private static void LinearBiasKernel(Index1D index, Rows bias, Rows output, LinearShape shape) => output[index / shape.Outputs, index % shape.Outputs] = bias[index % shape.Outputs, 0];

    // A row-major weight as it lies, a thread an output of one row: the same chain, read across.
    private static void LinearInPlaceKernel<T, TStored>(Rows input, ArrayView<T> weight, long stride, Rows bias, Rows output, LinearShape shape)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        int column = Grid.IdxY * Group.DimX + Group.IdxX, row = Grid.IdxX;
        if (column >= shape.Outputs) return;
        float sum = 0;
        for (int i = 0; i < shape.Inputs; i++) sum = Fused.MultiplyAdd(input[row, i], TStored.Load(weight, column * stride, i, 1, 1), sum);
        output[row, column] = shape.HasBias != 0 ? sum + bias[column, 0] : sum;
    }

    /// <summary>The launchers of one stored type: one row, a few, many; in patches for any number.</summary>
    private sealed class LinearKernels<T> where T : unmanaged
    {
        public Action<AcceleratorStream, KernelConfig, Rows, ArrayView<T>, ArrayView<float>, Rows, Rows, LinearShape>? One, Few, Many, Patches;
    }
}

/// <summary>Sizes of a product.</summary>
internal readonly struct LinearShape(int rows, int inputs, int outputs, int hasBias)
{
    public readonly int Rows = rows;
    public readonly int Inputs = inputs;
    public readonly int Outputs = outputs;
    public readonly int HasBias = hasBias;

    /// <summary>Panels of outputs, where the weight lies in these.</summary>
    public int Panels => (Outputs - 1) / Patch.Channels + 1;
}

/// <summary>How a packed weight's numbers are read; those of an output lie a stride of all outputs apart, or of its panel's.</summary>
internal interface IStoredWeight<T> where T : unmanaged
{
    /// <summary>Where the number of an even input lies.</summary>
    static virtual long Place(int input, int output, int outputs) => (long)input * outputs + output;

    /// <summary>Rows that some inputs take.</summary>
    static virtual int Rows(int inputs) => inputs;

    /// <summary>The scale of the numbers from an input on, as far as a tile goes.</summary>
    static virtual float Scale(ArrayView<float> scales, int input, int output, int outputs) => 1;

    /// <summary>Some inputs' numbers of a panel as float32, where they lie or unpacked.</summary>
    /// <param name="weight">The weight.</param>
    /// <param name="at">Where the first input's lie.</param>
    /// <param name="steps">How many inputs.</param>
    /// <param name="numbers">Room to unpack them.</param>
    /// <param name="scales">The scales.</param>
    /// <param name="input">The first input, of a block's if there are blocks.</param>
    /// <param name="output">The panel's first output.</param>
    /// <param name="count">Its outputs.</param>
    /// <param name="outputs">All outputs.</param>
    static abstract ref float Panel(ArrayView<T> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs);

    /// <summary>A number, some inputs after the one that lies at a place.</summary>
    static abstract float Load(ArrayView<T> weight, long at, int input, long stride, float scale);
}

internal readonly struct Float32Weight : IStoredWeight<float>
{
    public static ref float Panel(ArrayView<float> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs) => ref weight[at];

    public static float Load(ArrayView<float> weight, long at, int input, long stride, float scale) => weight[at + input * stride];
}

internal readonly struct BFloat16Weight : IStoredWeight<ushort>
{
    public static ref float Panel(ArrayView<ushort> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs) =>
        ref Panels.Unpacked<ushort, BFloat16Weight>(weight, at, steps, numbers, scales, input, output, count, outputs);

    public static float Load(ArrayView<ushort> weight, long at, int input, long stride, float scale) => Numbers.FromBFloat16(weight[at + input * stride]);
}

internal readonly struct Float16Weight : IStoredWeight<ushort>
{
    public static ref float Panel(ArrayView<ushort> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs) =>
        ref Panels.Unpacked<ushort, Float16Weight>(weight, at, steps, numbers, scales, input, output, count, outputs);

    public static float Load(ArrayView<ushort> weight, long at, int input, long stride, float scale) => Numbers.FromFloat16(weight[at + input * stride]);
}

/// <summary>A byte holds one integer; the number is scale · integer, rounded to float32.</summary>
internal readonly struct Int8Weight : IStoredWeight<byte>
{
    public static ref float Panel(ArrayView<byte> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs) =>
        ref Panels.Unpacked<byte, Int8Weight>(weight, at, steps, numbers, scales, input, output, count, outputs);

    public static float Scale(ArrayView<float> scales, int input, int output, int outputs) => scales[(long)(input / WeightBlocks.Size) * outputs + output];

    public static float Load(ArrayView<byte> weight, long at, int input, long stride, float scale) => scale * (sbyte)weight[at + input * stride];
}

/// <summary>A byte holds the integers of two inputs, the first in its lower half.</summary>
internal readonly struct Int4Weight : IStoredWeight<byte>
{
    public static ref float Panel(ArrayView<byte> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs) =>
        ref Panels.Unpacked<byte, Int4Weight>(weight, at, steps, numbers, scales, input, output, count, outputs);

    public static int Rows(int inputs) => (inputs + 1) / 2;

    public static long Place(int input, int output, int outputs) => (long)(input / 2) * outputs + output;

    public static float Scale(ArrayView<float> scales, int input, int output, int outputs) => scales[(long)(input / WeightBlocks.Size) * outputs + output];

    public static float Load(ArrayView<byte> weight, long at, int input, long stride, float scale)
    {
        int both = weight[at + (input >> 1) * stride], half = both >> (4 * (input & 1)) & 15;
        return scale * ((half ^ 8) - 8);                    // the half's own sign
    }
}

/// <summary>Panels of narrow numbers.</summary>
internal static class Panels
{
    /// <summary>Writes a panel's numbers where they are wanted.</summary>
    public static ref float Unpacked<T, TStored>(ArrayView<T> weight, long at, int steps, ArrayView<float> numbers, ArrayView<float> scales, int input, int output, int count, int outputs)
        where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        for (int k = 0; k < steps; k++)
            for (int c = 0; c < count; c++) numbers[k * Patch.Channels + c] = TStored.Load(weight, at + c, k, Patch.Channels, TStored.Scale(scales, input + k, output + c, outputs));
        return ref numbers[0];
    }
}
