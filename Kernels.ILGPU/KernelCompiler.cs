using System.Reflection;
using global::ILGPU;
using global::ILGPU.Backends.EntryPoints;
using global::ILGPU.Backends.PTX;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;

namespace Treeline.Kernels.ILGPU;

/// <summary>Compiles kernels, and says what a compiler has against one.</summary>
internal static class KernelCompiler
{
    // Threads of a group where a kernel runs once for each index. ILGPU would take the most that a device has: 4,096 on PoCL, so that a few thousand indices run on one core.
    private const int IndexGroup = 128;

    /// <summary>A kernel's launcher.</summary>
    /// <param name="device">The device.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="use">Is told of the program that it is part of, on OpenCL.</param>
    /// <exception cref="KernelCompilationException">It cannot be compiled; the device stays usable.</exception>
    public static T Compile<T>(Device device, MethodInfo kernel, KernelUse use) where T : Delegate
    {
        try
        {
            Accelerator accelerator = device.Accelerator;
            int group = TakesIndex(kernel) ? Math.Min(IndexGroup, accelerator.MaxNumThreadsPerGroup) : 0;
            Kernel loaded = device.Programs is not null ? device.Programs.Load(kernel, group, use)
                : group > 0 ? accelerator.LoadImplicitlyGroupedKernel(accelerator.CompileKernel(Entry(kernel)), group)
                : accelerator.LoadKernel(accelerator.CompileKernel(Entry(kernel)));
            return loaded.CreateLauncherDelegate<T>();
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // What ILGPU had begun to translate stays with the context, and every later kernel would stumble over it.
            device.Context.ClearCache(ClearCacheMode.Default);
            device.Backend?.Wait();                         // an earlier launch that failed shows only now, and is not the compiler's doing
            string log = Log(device, kernel, e);
            throw new KernelCompilationException($"{device.Name}: kernel {NameOf(kernel)} cannot be compiled: {log}", e) { Kernel = NameOf(kernel), Device = device.Name, Log = log };
        }
    }

    /// <summary>Its name, with the types it is made for.</summary>
    public static string NameOf(MethodInfo kernel) => kernel.IsGenericMethod
        ? $"{kernel.Name}<{string.Join(", ", kernel.GetGenericArguments().Select(type => type.Name))}>"
        : kernel.Name;

    /// <summary>True for a kernel that runs once for each index; others say their groups at the launch.</summary>
    public static bool TakesIndex(MethodInfo kernel) => kernel.GetParameters()[0].ParameterType == typeof(Index1D);

    /// <summary>A kernel as it is launched: once for each index, or in groups that are said at the launch.</summary>
    public static EntryPointDescription Entry(MethodInfo kernel) =>
        TakesIndex(kernel) ? EntryPointDescription.FromImplicitlyGroupedKernel(kernel) : EntryPointDescription.FromExplicitlyGroupedKernel(kernel);

    // ILGPU drops what CUDA's compiler says: the kernel is compiled once more to hear it. Elsewhere the refusal's own words are the log.
    private static string Log(Device device, MethodInfo kernel, Exception refusal)
    {
        if (refusal is not CudaException || device.Accelerator is not CudaAccelerator cuda) return Words(refusal);
        try
        {
            string? log = Log((PTXCompiledKernel)cuda.Backend.Compile(Entry(kernel), default));
            return string.IsNullOrWhiteSpace(log) ? Words(refusal) : log.TrimEnd('\0', '\n');
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return Words(e);
        }
    }

    private static string? Log(PTXCompiledKernel kernel)
    {
        if (CudaAPI.CurrentAPI.LoadModule(out nint module, kernel.PTXAssembly, out string? log) == CudaError.CUDA_SUCCESS)
            CudaException.ThrowIfFailed(CudaAPI.CurrentAPI.DestroyModule(module));
        return log;
    }

    private static string Words(Exception e) => e switch
    {
        AggregateException => Words(e.InnerException!),     // of a thread that translated it
        { InnerException: { } inner } => $"{e.Message}: {Words(inner)}",
        _ => e.Message,
    };
}
