namespace Treeline.Kernels;

/// <summary>Tensors as float64 rows and back: all that the oracle knows of memory.</summary>
internal static unsafe class OracleNumbers
{
    /// <summary>One row, widened.</summary>
    public static double[] Row(DeviceTensor tensor, int row)
    {
        var numbers = new double[tensor.RowLength];
        long start = row * tensor.RowStride;
        for (int i = 0; i < numbers.Length; i++) numbers[i] = At(tensor, start + i);
        return numbers;
    }

    /// <summary>All rows, widened.</summary>
    public static double[][] Rows(DeviceTensor tensor)
    {
        var rows = new double[tensor.Rows][];
        for (int i = 0; i < rows.Length; i++) rows[i] = Row(tensor, i);
        return rows;
    }

    /// <summary>All numbers, row after row.</summary>
    public static double[] All(DeviceTensor tensor) => [.. Rows(tensor).SelectMany(row => row)];

    /// <summary>All integers, row after row.</summary>
    public static int[] Integers(DeviceTensor tensor)
    {
        int width = tensor.RowLength;
        var numbers = new int[tensor.Count];
        for (int i = 0; i < numbers.Length; i++) numbers[i] = tensor.Pointer<int>()[i / width * tensor.RowStride + i % width];
        return numbers;
    }

    /// <summary>Stores a row, rounded once to the tensor's type.</summary>
    public static void Store(DeviceTensor tensor, int row, ReadOnlySpan<double> numbers)
    {
        long start = row * tensor.RowStride;
        for (int i = 0; i < numbers.Length; i++)
        {
            if (tensor.Type == ElementType.Float64) tensor.Pointer<double>()[start + i] = numbers[i];
            else tensor.Pointer<float>()[start + i] = (float)numbers[i];
        }
    }

    /// <summary>Stores a row of integers.</summary>
    public static void Store(DeviceTensor tensor, int row, ReadOnlySpan<int> numbers)
    {
        for (int i = 0; i < numbers.Length; i++) tensor.Pointer<int>()[row * tensor.RowStride + i] = numbers[i];
    }

    private static double At(DeviceTensor tensor, long index) => tensor.Type switch
    {
        ElementType.Float32 => tensor.Pointer<float>()[index],
        ElementType.BFloat16 => tensor.Pointer<BFloat16>()[index],
        ElementType.Float16 => (double)tensor.Pointer<Half>()[index],
        ElementType.Float64 => tensor.Pointer<double>()[index],
        _ => throw new ArgumentException($"tensor: expected real numbers, got {tensor.Type}", nameof(tensor)),
    };
}
