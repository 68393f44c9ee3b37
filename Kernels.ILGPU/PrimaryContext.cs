using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;

namespace Treeline.Kernels.ILGPU;

/// <summary>Moves an accelerator into its device's primary context, where the CUDA runtime and all that builds on it (PyTorch, cuBLAS) allocate; ILGPU always makes a context of its own.</summary>
internal static unsafe class PrimaryContext
{
    /// <summary>Makes the primary context the accelerator's. Must come before anything is allocated or loaded there.</summary>
    /// <exception cref="CudaException">The driver refuses.</exception>
    public static void Adopt(CudaAccelerator accelerator)
    {
        var retain = (delegate* unmanaged<nint*, int, CudaError>)Driver("cuDevicePrimaryCtxRetain");
        nint primary, own = accelerator.NativePtr;
        CudaException.ThrowIfFailed(retain(&primary, Number(accelerator)));
        SetNativePtr(accelerator, primary);
        CudaException.ThrowIfFailed(CudaAPI.CurrentAPI.DestroyContext(own));
        CudaException.ThrowIfFailed(CudaAPI.CurrentAPI.SetCurrentContext(primary));
    }

    /// <summary>Says that this accelerator uses the context no more; it lives on while others use it.</summary>
    public static void Release(CudaAccelerator accelerator) => ((delegate* unmanaged<int, CudaError>)Driver("cuDevicePrimaryCtxRelease_v2"))(Number(accelerator));

    private static int Number(CudaAccelerator accelerator) => ((CudaDevice)accelerator.Device).DeviceId;

    private static nint Driver(string function) => NativeLibrary.GetExport(DriverLibraries.Load(Drivers.CudaLibrary), function);

    // ILGPU has no way to give an accelerator a context that is there already.
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "set_NativePtr")]
    private static extern void SetNativePtr(Accelerator accelerator, nint context);
}
