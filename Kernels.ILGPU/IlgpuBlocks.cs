using System.Runtime.InteropServices;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int SlabNumbers = 1 << 22;                // numbers of a weight that cross to the host at a time

    /// <summary>Packs in blocks of integers. The contract's rule runs on the host, where a division has one result; the device holds the float32 that the integers stand for.</summary>
    private IlgpuWeightMatrix PackBlocks(DeviceTensor weight, WeightForm form, bool transposed)
    {
        using var rounded = new DeviceTensor(AllocateCore(weight.Count * sizeof(float)), ElementType.Float32, [weight.Rows, weight.RowLength], [weight.RowLength, 1], 0, owner: true);
        int step = Math.Max(1, SlabNumbers / weight.RowLength / WeightBlocks.Size) * WeightBlocks.Size;
        Span<sbyte> integers = stackalloc sbyte[WeightBlocks.Size];
        Span<float> block = stackalloc float[WeightBlocks.Size];
        for (int first = 0; first < weight.Rows; first += step)
        {
            int rows = Math.Min(step, weight.Rows - first);
            float[] numbers = HostFloats(weight.Slice(0, first, rows));
            // Lines of numbers that share a scale: along the rows, or down the columns where inputs lie there.
            (int lines, int length, int line, int next) = transposed ? (weight.RowLength, rows, 1, weight.RowLength) : (rows, weight.RowLength, weight.RowLength, 1);
            for (int output = 0; output < lines; output++)
            {
                for (int input = 0; input < length; input += WeightBlocks.Size)
                {
                    int count = Math.Min(WeightBlocks.Size, length - input), at = output * line + input * next;
                    for (int i = 0; i < count; i++) block[i] = numbers[at + i * next];
                    float scale = WeightBlocks.Quantize(form, block[..count], integers[..count], transposed ? output : first + output, transposed ? first + input : input);
                    for (int i = 0; i < count; i++) numbers[at + i * next] = scale * integers[i];
                }
            }

            WriteCore(rounded.Slice(0, first, rows), MemoryMarshal.AsBytes<float>(numbers));
        }

        var packed = (IlgpuWeightMatrix)PackCore(rounded, WeightForm.Float32, transposed);
        Stream.Synchronize();                               // the pack kernel still reads what is given back here
        return packed.As(form);
    }
}
