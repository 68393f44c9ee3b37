using System.Runtime.InteropServices;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private const int SlabNumbers = 1 << 20;                // numbers of a weight that are packed at a time

    /// <summary>Packs in blocks of integers. The contract's rule runs on the host, where a division has one result.</summary>
    private IlgpuWeightMatrix PackBlocks(DeviceTensor weight, WeightForm form, bool transposed)
    {
        (int outputs, int inputs) = transposed ? (weight.RowLength, weight.Rows) : (weight.Rows, weight.RowLength);
        var blocks = new HostBlocks(form, outputs, inputs, Panel(outputs));
        int step = Math.Max(1, SlabNumbers / weight.RowLength / WeightBlocks.Size) * WeightBlocks.Size;
        for (long begin = 0; begin < weight.Rows; begin += step)
        {
            int first = (int)begin, rows = Math.Min(step, weight.Rows - first);
            float[] numbers = HostFloats(weight.Slice(0, first, rows));
            if (transposed) blocks.Take(numbers, firstOutput: 0, weight.RowLength, firstInput: first, rows, output: 1, input: weight.RowLength);
            else blocks.Take(numbers, firstOutput: first, rows, firstInput: 0, weight.RowLength, output: weight.RowLength, input: 1);
        }

        var integers = new IlgpuBuffer(this, blocks.Integers.Length);
        IlgpuBuffer? scales = null;
        try
        {
            scales = new IlgpuBuffer(this, (long)blocks.Scales.Length * sizeof(float));
            integers.Write(0, blocks.Integers);
            scales.Write(0, MemoryMarshal.AsBytes<float>(blocks.Scales));
            return new IlgpuWeightMatrix(this, form, outputs, inputs, ElementType.UInt8, UsesPatches, integers, null, scales);
        }
        catch
        {
            integers.Dispose();
            scales?.Dispose();
            throw;
        }
    }

    /// <summary>A weight in blocks as a device has it: integers <c>[input][output]</c>, in 4 bits two inputs to a byte, the first in its lower half; scales <c>[block][output]</c>. Where a panel has not all outputs, the integers of one follow those of the one before it.</summary>
    private sealed class HostBlocks(WeightForm form, int outputs, int inputs, int panel)
    {
        private readonly bool _isInt4 = form == WeightForm.Int4;

        public byte[] Integers { get; } = new byte[checked(Rows(form, inputs) * Padded(outputs, panel))];

        public float[] Scales { get; } = new float[(long)WeightBlocks.Count(inputs) * outputs];

        /// <summary>Takes some outputs' weights of some inputs, whole blocks of them or up to the last one.</summary>
        /// <param name="numbers">The weights.</param>
        /// <param name="firstOutput">The first output.</param>
        /// <param name="outputCount">How many.</param>
        /// <param name="firstInput">The first input.</param>
        /// <param name="inputCount">How many.</param>
        /// <param name="output">Distance of outputs.</param>
        /// <param name="input">Distance of inputs.</param>
        public void Take(float[] numbers, int firstOutput, int outputCount, int firstInput, int inputCount, int output, int input)
        {
            Span<float> block = stackalloc float[WeightBlocks.Size];
            Span<sbyte> integers = stackalloc sbyte[WeightBlocks.Size];
            for (int at = 0; at < inputCount; at += WeightBlocks.Size)
            {
                int count = Math.Min(WeightBlocks.Size, inputCount - at), place = firstInput + at;
                for (int o = 0; o < outputCount; o++)
                {
                    for (int i = 0; i < count; i++) block[i] = numbers[o * output + (at + i) * input];
                    Scales[(long)place / WeightBlocks.Size * outputs + firstOutput + o] = WeightBlocks.Quantize(form, block[..count], integers[..count], firstOutput + o, place);
                    for (int i = 0; i < count; i++) Set(place + i, firstOutput + o, integers[i]);
                }
            }
        }

        private static long Rows(WeightForm form, int inputs) => form == WeightForm.Int4 ? (inputs + 1L) / 2 : inputs;

        private void Set(long input, int output, int integer)
        {
            long at = (output / panel * Rows(form, inputs) + (_isInt4 ? input / 2 : input)) * panel + output % panel;
            if (!_isInt4) Integers[at] = (byte)integer;
            else Integers[at] |= (byte)(input % 2 == 0 ? integer & 15 : integer << 4);
        }
    }
}
