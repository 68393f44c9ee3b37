using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Says what is wrong where ILGPU finds no device or cannot use one; ILGPU itself is silent.</summary>
internal static class Drivers
{
    /// <summary>The CUDA driver's library as ILGPU asks for it.</summary>
    public static string CudaLibrary => OperatingSystem.IsWindows() ? "nvcuda" : "cuda";

    /// <summary>Why a family has no device here.</summary>
    public static string WhyNone(string family) => family == "cuda" ? WhyNoCuda() : WhyNoOpenCL();

    /// <summary>Why a CUDA device cannot be used, empty where it can.</summary>
    public static string WhyNot(CudaDevice device) =>
        device.Architecture is { } architecture ? WhyNot(architecture, device.DriverVersion) : "ILGPU does not know its architecture";

    /// <summary>Why a driver cannot be used for an architecture, empty where it can. A driver that is newer than ILGPU gets the newest instruction set that ILGPU writes: drivers take old ones.</summary>
    public static string WhyNot(CudaArchitecture architecture, CudaDriverVersion driver) => CudaAccelerator.TryGetInstructionSet(architecture, driver, out CudaDriverVersion least, out _)
        ? ""
        : $"its driver is too old: it has CUDA {driver}, ILGPU needs {least} or newer for {architecture}";

    private static string WhyNoCuda()
    {
        if (DriverLibraries.Load(CudaLibrary) == 0) return "no CUDA driver: libcuda.so.1 (on Windows nvcuda.dll) comes with NVIDIA's driver and is not here";
        CudaAPI api = CudaAPI.CurrentAPI;
        if (!api.IsSupported) return "the CUDA driver does not start; nvidia-smi says more";
        string version = api.GetDriverVersion(out CudaDriverVersion driver) == CudaError.CUDA_SUCCESS ? $"the CUDA {driver} driver" : "the CUDA driver";
        return api.GetDeviceCount(out int count) != CudaError.CUDA_SUCCESS || count == 0
            ? $"{version} sees no device"
            : $"{version} sees {count}, but ILGPU knows none of their architectures";
    }

    private static string WhyNoOpenCL()
    {
        if (DriverLibraries.Load("OpenCL") == 0) return "no OpenCL loader: libOpenCL.so.1 (on Debian and Ubuntu: ocl-icd-libopencl1) is not here";
        return CLAPI.CurrentAPI.IsSupported && CLAPI.CurrentAPI.GetNumPlatforms(out int platforms) == CLError.CL_SUCCESS && platforms > 0
            ? $"the OpenCL loader finds {platforms} driver(s), but no device that ILGPU can list"
            : "the OpenCL loader finds no driver (on Debian and Ubuntu, for the CPU: pocl-opencl-icd)";
    }
}
