using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>A weight in device memory: packed ones transposed, <c>[inputs, outputs]</c>, so that neighbouring outputs lie side by side; in place as it lies.</summary>
internal sealed class IlgpuWeightMatrix : WeightMatrix
{
    private readonly DeviceBuffer? _owned, _scales;

    public IlgpuWeightMatrix(KernelBackend backend, WeightForm form, int outputs, int inputs, ElementType type, DeviceBuffer? owned, DeviceTensor? inPlace, DeviceBuffer? scales = null)
        : base(backend, form, outputs, inputs)
    {
        Type = type;
        _owned = owned;
        _scales = scales;
        InPlace = inPlace;
        Data = owned is null ? default : ((IlgpuBuffer)owned).View;
        Scales = scales is null ? default : ((IlgpuBuffer)scales).View.Cast<float>();
        Bytes = form is WeightForm.Int8 or WeightForm.Int4 ? outputs * WeightBlocks.Bytes(form, inputs) : (long)outputs * inputs * type.Size();
    }

    /// <summary>What one number is stored as; bytes that hold one integer or two where <see cref="Scales"/> are.</summary>
    public ElementType Type { get; }

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
    private Action<AcceleratorStream, Index1D, Rows, ArrayView<float>, int, int, int>? _packFloat32;
    private Action<AcceleratorStream, Index1D, Rows, ArrayView<ushort>, int, int, int>? _packBFloat16, _packFloat16;

    /// <inheritdoc/>
    protected override WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed)
    {
        ArgumentNullException.ThrowIfNull(weight);
        (int outputs, int inputs) = transposed ? (weight.RowLength, weight.Rows) : (weight.Rows, weight.RowLength);
        if (form == WeightForm.InPlace) return new IlgpuWeightMatrix(this, form, outputs, inputs, weight.Type, null, weight);
        if (form is WeightForm.Int8 or WeightForm.Int4) return PackBlocks(weight, form, transposed);
        ElementType type = form switch
        {
            WeightForm.BFloat16 => ElementType.BFloat16,
            WeightForm.Float16 => ElementType.Float16,
            _ => ElementType.Float32,
        };
        var buffer = new IlgpuBuffer(this, (long)outputs * inputs * type.Size());
        Index1D threads = Threads((long)outputs * inputs);
        int step = transposed ? 1 : 0;
        Rows from = Floats(weight, 0);
        switch (type)
        {
            case ElementType.Float32:
                Load(ref _packFloat32, PackFloat32Kernel)(Stream, threads, from, buffer.View.Cast<float>(), outputs, inputs, step);
                break;
            case ElementType.BFloat16:
                Load(ref _packBFloat16, PackBFloat16Kernel)(Stream, threads, from, buffer.View.Cast<ushort>(), outputs, inputs, step);
                break;
            default:
                Load(ref _packFloat16, PackFloat16Kernel)(Stream, threads, from, buffer.View.Cast<ushort>(), outputs, inputs, step);
                break;
        }

        return new IlgpuWeightMatrix(this, form, outputs, inputs, type, buffer, null);
    }

    // One thread a stored number.
    private static void PackFloat32Kernel(Index1D index, Rows from, ArrayView<float> to, int outputs, int inputs, int transposed) =>
        to[index] = Unpacked(index, from, outputs, transposed);

    private static void PackBFloat16Kernel(Index1D index, Rows from, ArrayView<ushort> to, int outputs, int inputs, int transposed) =>
        to[index] = Numbers.ToBFloat16(Unpacked(index, from, outputs, transposed));

    private static void PackFloat16Kernel(Index1D index, Rows from, ArrayView<ushort> to, int outputs, int inputs, int transposed) =>
        to[index] = Numbers.ToFloat16(Unpacked(index, from, outputs, transposed));

    private static float Unpacked(Index1D index, Rows from, int outputs, int transposed)
    {
        int input = index / outputs, output = index % outputs;
        return transposed != 0 ? from[input, output] : from[output, input];
    }
}
