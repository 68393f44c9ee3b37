using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>Memory of the host outside the garbage collector's heap.</summary>
internal static unsafe class HostMemory
{
    /// <summary>One cache line, one 512-bit vector.</summary>
    public const int Alignment = 64;

    /// <summary>Takes aligned memory of undefined contents, to be given back by <see cref="NativeMemory.AlignedFree"/>.</summary>
    /// <exception cref="OutOfDeviceMemoryException">There is not so much.</exception>
    public static void* Allocate(nuint bytes)
    {
        try
        {
            return NativeMemory.AlignedAlloc(bytes, Alignment);
        }
        catch (OutOfMemoryException e)
        {
            GCMemoryInfo memory = GC.GetGCMemoryInfo();
            throw new OutOfDeviceMemoryException($"host memory: asked for {bytes} bytes, free about {memory.TotalAvailableMemoryBytes - memory.MemoryLoadBytes}", e);
        }
    }
}
