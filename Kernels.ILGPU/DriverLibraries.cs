using System.Reflection;
using System.Runtime.InteropServices;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>
/// Finds the drivers' libraries: what a machine has for sure is <c>libOpenCL.so.1</c> and <c>libcuda.so.1</c>, ILGPU asks for names without a version, which are often left to development packages.
/// Of cuBLAS ILGPU asks for versions up to 12; version 13 has the same functions.
/// </summary>
internal static class DriverLibraries
{
    private static readonly Lock Gate = new();
    private static bool _installed;

    /// <summary>Must come before ILGPU first looks at a driver; later calls do nothing.</summary>
    public static void Install()
    {
        lock (Gate)
        {
            if (_installed) return;
            _installed = true;
            Install(typeof(CLDevice).Assembly, Resolve);
            Install(typeof(CuBlas).Assembly, ResolveCuBlas);
        }
    }

    /// <summary>A driver's library, for the few calls that ILGPU does not have; 0 where it is not here.</summary>
    public static nint Load(string name) => Resolve(name, typeof(DriverLibraries).Assembly, null);

    private static void Install(Assembly assembly, DllImportResolver resolve)
    {
        try
        {
            NativeLibrary.SetDllImportResolver(assembly, resolve);
        }
        catch (InvalidOperationException)
        {
            // Somebody else resolves its libraries already; theirs stands.
        }
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? paths)
    {
        if (NativeLibrary.TryLoad(name, assembly, paths, out nint handle)) return handle;
        return name is "OpenCL" or "cuda" && NativeLibrary.TryLoad($"lib{name}.so.1", out handle) ? handle : 0;
    }

    private static nint ResolveCuBlas(string name, Assembly assembly, DllImportSearchPath? paths)
    {
        if (NativeLibrary.TryLoad(name, assembly, paths, out nint handle)) return handle;
        foreach (string path in CuBlasPaths(name, Environment.GetEnvironmentVariable("CUDA_PATH")))
            if (NativeLibrary.TryLoad(path, out handle)) return handle;
        return 0;
    }

    /// <summary>Where cuBLAS may lie when the system does not find it by the name that ILGPU asks for: the toolkit's folder, and under the newest name.</summary>
    /// <param name="name">What ILGPU asks for.</param>
    /// <param name="toolkit">The toolkit's folder where one is named.</param>
    internal static IEnumerable<string> CuBlasPaths(string name, string? toolkit)
    {
        bool isWindows = name.EndsWith(".dll", StringComparison.Ordinal);
        if (!name.Contains("cublas", StringComparison.Ordinal)) return [];
        string[] names = [name, isWindows ? "cublas64_13.dll" : "libcublas.so.13"];
        string[] folders = [.. new[] { toolkit, isWindows ? null : "/usr/local/cuda" }.OfType<string>().Select(folder => Path.Combine(folder, isWindows ? "bin" : "lib64"))];
        return [names[1], .. folders.SelectMany(folder => names.Select(file => Path.Combine(folder, file)))];
    }
}
