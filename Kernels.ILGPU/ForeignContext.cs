using System.Runtime.InteropServices;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Asks the driver whose foreign memory is; ILGPU has no call for it.</summary>
internal static unsafe class ForeignContext
{
    private const uint MemSize = 0x1102, MemContext = 0x1106;                 // CL_MEM_SIZE, CL_MEM_CONTEXT
    private const int PointerContext = 1;                                     // CU_POINTER_ATTRIBUTE_CONTEXT

    /// <summary>Refuses memory of another context, and a <c>cl_mem</c> that is smaller than what it is said to hold.</summary>
    /// <exception cref="ArgumentException">It is not this accelerator's.</exception>
    public static void Require(string name, Accelerator accelerator, nint pointer, long bytes)
    {
        switch (accelerator)
        {
            case CLAccelerator opencl: RequireOpenCL(name, opencl.NativePtr, pointer, bytes); break;
            case CudaAccelerator cuda: RequireCuda(name, cuda.NativePtr, pointer); break;
            default: break;                                 // the host's memory has no context
        }
    }

    private static void RequireOpenCL(string name, nint context, nint pointer, long bytes)
    {
        var ask = (delegate* unmanaged<nint, uint, nuint, void*, nuint*, int>)NativeLibrary.GetExport(DriverLibraries.Load("OpenCL"), "clGetMemObjectInfo");
        nint owner;
        nuint size;
        if (ask(pointer, MemContext, (nuint)sizeof(nint), &owner, null) != 0 || ask(pointer, MemSize, (nuint)sizeof(nuint), &size, null) != 0)
            throw new ArgumentException($"pointer: expected a cl_mem for {name}, got 0x{pointer:x}, which OpenCL does not know", nameof(pointer));
        if (owner != context) throw new ArgumentException(Other(name, context, owner), nameof(pointer));
        if (size < (nuint)bytes) throw new ArgumentException($"pointer: expected a cl_mem of at least {bytes} bytes, got one of {size}", nameof(pointer));
    }

    private static void RequireCuda(string name, nint context, nint pointer)
    {
        var ask = (delegate* unmanaged<void*, int, nint, int>)NativeLibrary.GetExport(DriverLibraries.Load(Drivers.CudaLibrary), "cuPointerGetAttribute");
        nint owner;
        if (ask(&owner, PointerContext, pointer) != 0)
            throw new ArgumentException($"pointer: expected device memory for {name}, got 0x{pointer:x}, which CUDA does not know", nameof(pointer));
        if (owner != context) throw new ArgumentException(Other(name, context, owner), nameof(pointer));
    }

    private static string Other(string name, nint context, nint owner) => $"pointer: expected memory of {name}'s context 0x{context:x}, got memory of context 0x{owner:x}";
}
