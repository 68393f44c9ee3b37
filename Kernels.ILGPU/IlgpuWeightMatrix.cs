using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>A weight in device memory: packed ones transposed, <c>[inputs, outputs]</c>, so that neighbouring outputs lie side by side, where products are computed in patches panel by panel; in place as it lies.</summary>
internal sealed class IlgpuWeightMatrix : WeightMatrix
{
    private readonly DeviceBuffer? _owned, _scales;

    public IlgpuWeightMatrix(KernelBackend backend, WeightForm form, int outputs, int inputs, ElementType type, bool inPanels, DeviceBuffer? owned, DeviceTensor? inPlace, DeviceBuffer? scales = null)
        : base(backend, form, outputs, inputs)
    {
        Type = type;
        InPanels = inPanels;
        _owned = owned;
        _scales = scales;
        InPlace = inPlace;
        Data = owned is null ? default : ((IlgpuBuffer)owned).View;
        Scales = scales is null ? default : ((IlgpuBuffer)scales).View.Cast<float>();
        Bytes = form is WeightForm.Int8 or WeightForm.Int4 ? outputs * WeightBlocks.Bytes(form, inputs) : (long)outputs * inputs * type.Size();
    }

    /// <summary>What one number is stored as; bytes that hold one integer or two where <see cref="Scales"/> are.</summary>
    public ElementType Type { get; }

    /// <summary>True where it is packed in panels of <see cref="Patch.Channels"/> outputs, the numbers of one behind those of the one before it.</summary>
    public bool InPanels { get; }

    /// <summary>The packed numbers.</summary>
    public ArrayView<byte> Data { get; }

    /// <summary>A scale for each block of each output, where the numbers are integers.</summary>
    public ArrayView<float> Scales { get; }

    /// <summary>The tensor itself where it is used in place.</summary>
    public DeviceTensor? InPlace { get; }

    public override long Bytes { get; }

    protected override void Dispose(bool disposing)
    {
        _owned?.Dispose();
        _scales?.Dispose();
    }
}

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, Rows, ArrayView<float>, PackShape>? _packFloat32;
    private Action<AcceleratorStream, Index1D, Rows, ArrayView<ushort>, PackShape>? _packBFloat16, _packFloat16;

    /// <inheritdoc/>
    protected override WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed)
    {
        ArgumentNullException.ThrowIfNull(weight);
        (int outputs, int inputs) = transposed ? (weight.RowLength, weight.Rows) : (weight.Rows, weight.RowLength);
        if (form == WeightForm.InPlace) return new IlgpuWeightMatrix(this, form, outputs, inputs, weight.Type, false, null, weight);
        if (form is WeightForm.Int8 or WeightForm.Int4) return PackBlocks(weight, form, transposed);
        ElementType type = form switch
        {
            WeightForm.BFloat16 => ElementType.BFloat16,
            WeightForm.Float16 => ElementType.Float16,
            _ => ElementType.Float32,
        };
        // Slab by slab, so that narrow numbers are never widened as a whole. The last one must be in reach.
        int step = Math.Max(1, SlabNumbers / weight.RowLength);
        RequireReachable(weight, weight.Offset + (weight.Rows - 1L) / step * step * weight.RowStride);
        int panel = Panel(outputs);
        var buffer = new IlgpuBuffer(this, Padded(outputs, panel) * inputs * type.Size());
        try
        {
            for (long first = 0; first < weight.Rows; first += step) Pack(weight.Slice(0, (int)first, (int)Math.Min(step, weight.Rows - first)), type, buffer.View, (int)first, outputs, inputs, panel, transposed);
        }
        catch
        {
            buffer.Dispose();
            throw;
        }

        return new IlgpuWeightMatrix(this, form, outputs, inputs, type, UsesPatches, buffer, null);
    }

    /// <summary>Outputs of a panel, whose numbers follow each other: all, or those of a patch.</summary>
    private int Panel(int outputs) => UsesPatches ? Patch.Channels : outputs;

    /// <summary>Outputs, those counted that fill the last panel.</summary>
    private static long Padded(int outputs, int panel) => ((long)outputs + panel - 1) / panel * panel;

    private void Pack(DeviceTensor slab, ElementType type, ArrayView<byte> to, int first, int outputs, int inputs, int panel, bool transposed)
    {
        Index1D threads = Threads(slab.Count);
        Rows from = Floats(slab, 0);
        var shape = new PackShape(outputs, inputs, panel, first, slab.Rows, transposed ? 1 : 0);
        switch (type)
        {
            case ElementType.Float32: Load(ref _packFloat32, PackFloat32Kernel)(Stream, threads, from, to.Cast<float>(), shape); break;
            case ElementType.BFloat16: Load(ref _packBFloat16, PackBFloat16Kernel)(Stream, threads, from, to.Cast<ushort>(), shape); break;
            default: Load(ref _packFloat16, PackFloat16Kernel)(Stream, threads, from, to.Cast<ushort>(), shape); break;
        }
    }

    // One thread a number of some rows.
    private static void PackFloat32Kernel(Index1D index, Rows from, ArrayView<float> to, PackShape shape) => to[shape.Place(index)] = shape.Number(from, index);

    private static void PackBFloat16Kernel(Index1D index, Rows from, ArrayView<ushort> to, PackShape shape) => to[shape.Place(index)] = Numbers.ToBFloat16(shape.Number(from, index));

    private static void PackFloat16Kernel(Index1D index, Rows from, ArrayView<ushort> to, PackShape shape) => to[shape.Place(index)] = Numbers.ToFloat16(shape.Number(from, index));
}

/// <summary>Some rows of a weight on their way to <c>[inputs, outputs]</c>, panel by panel; neighbouring threads write neighbouring outputs.</summary>
internal readonly struct PackShape(int outputs, int inputs, int panel, int first, int rows, int transposed)
{
    public readonly int Outputs = outputs;

    /// <summary>All inputs, of which these rows may be a part.</summary>
    public readonly int Inputs = inputs;

    /// <summary>Outputs of a panel.</summary>
    public readonly int Panel = panel;

    public readonly int First = first;
    public readonly int Rows = rows;

    /// <summary>Not 0: rows are inputs, else outputs.</summary>
    public readonly int Transposed = transposed;

    public long Place(int index) => Transposed != 0
        ? Place(First + index / Outputs, index % Outputs)
        : Place(index / Rows, First + index % Rows);

    private long Place(int input, int output) => ((long)(output / Panel) * Inputs + input) * Panel + output % Panel;

    public float Number(Rows from, int index) => Transposed != 0 ? from[index / Outputs, index % Outputs] : from[index % Rows, index / Rows];
}
