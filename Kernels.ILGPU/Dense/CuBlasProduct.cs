using global::ILGPU;
using global::ILGPU.Runtime.Cuda;

namespace Treeline.Kernels.ILGPU;

/// <summary>Products of float32 by NVIDIA's cuBLAS, through ILGPU.Algorithms: faster than the own kernel, but the order of its sums depends on the number of rows.</summary>
internal sealed class CuBlasProduct : IDisposable
{
    private readonly CuBlas _library;

    private CuBlasProduct(CuBlas library) => _library = library;

    /// <summary>What <see cref="IlgpuBackend.Kernels"/> says of it.</summary>
    public KernelUse Use { get; } = new("cuBLAS Sgemm");

    /// <summary>The library and its version.</summary>
    public string Name => $"cuBLAS {_library.Version}";

    /// <summary>Opens the library on a device, null where it is not there or does not start.</summary>
    /// <param name="accelerator">The device.</param>
    /// <param name="whyNot">Why not, empty where it is.</param>
    public static CuBlasProduct? Open(CudaAccelerator accelerator, out string whyNot)
    {
        whyNot = "";
        try
        {
            accelerator.Bind();
            return new CuBlasProduct(new CuBlas(accelerator));
        }
        // What a library throws that is missing, is not one, lacks a function, or finds no room on the device.
        catch (Exception e) when (e is DllNotFoundException or BadImageFormatException or EntryPointNotFoundException or NotSupportedException or CuBlasException)
        {
            whyNot = e is CuBlasException refused ? $"cuBLAS does not start: {refused.Error}" : "cuBLAS is not here (libcublas of CUDA 11, 12 or 13)";
            return null;
        }
    }

    /// <summary>True where it takes rows as they lie: its strides are 32 bits wide and rows must not overlap.</summary>
    public static bool Takes(LinearShape shape, Rows input, Rows output) =>
        Fits(shape.Rows, input.Stride, shape.Inputs) && Fits(shape.Rows, output.Stride, shape.Outputs);

    /// <summary>Queues <c>output = input · weight</c>, or with <paramref name="onto"/> 1 <c>output += input · weight</c>.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="input"><c>[rows, inputs]</c>.</param>
    /// <param name="weight">float32 <c>[inputs, outputs]</c> without gaps.</param>
    /// <param name="output"><c>[rows, outputs]</c>.</param>
    /// <param name="shape">The sizes.</param>
    /// <param name="onto">What of the output stays: 0 or 1.</param>
    /// <exception cref="CuBlasException">The library refuses it.</exception>
    public void Multiply(CudaStream stream, Rows input, ArrayView<float> weight, Rows output, LinearShape shape, float onto)
    {
        stream.Accelerator.Bind();
        if (!ReferenceEquals(_library.Stream, stream)) _library.Stream = stream;
        Use.Before(stream);
        // The library counts by columns: what are rows here are columns there.
        _library.Gemm(
            CuBlasOperation.NonTranspose, CuBlasOperation.NonTranspose, shape.Outputs, shape.Rows, shape.Inputs,
            1, weight, shape.Outputs, input.Data, Stride(shape.Rows, input.Stride, shape.Inputs), onto, output.Data, Stride(shape.Rows, output.Stride, shape.Outputs));
        Use.After(stream);
    }

    /// <summary>Ends the library's side; harmless when repeated.</summary>
    public void Dispose() => _library.Dispose();

    private static bool Fits(int rows, long stride, int columns) => rows == 1 || (stride >= columns && stride <= int.MaxValue);

    private static int Stride(int rows, long stride, int columns) => rows == 1 ? columns : (int)stride;
}
