using System.Reflection;
using System.Runtime.InteropServices;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Finds the drivers' libraries: what a machine has for sure is <c>libOpenCL.so.1</c> and <c>libcuda.so.1</c>, ILGPU asks for names without a version, which are often left to development packages.</summary>
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
            try
            {
                NativeLibrary.SetDllImportResolver(typeof(CLDevice).Assembly, Resolve);
            }
            catch (InvalidOperationException)
            {
                // Somebody else resolves ILGPU's libraries already; theirs stands.
            }
        }
    }

    /// <summary>A driver's library, for the few calls that ILGPU does not have; 0 where it is not here.</summary>
    public static nint Load(string name) => Resolve(name, typeof(DriverLibraries).Assembly, null);

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? paths)
    {
        if (NativeLibrary.TryLoad(name, assembly, paths, out nint handle)) return handle;
        return name is "OpenCL" or "cuda" && NativeLibrary.TryLoad($"lib{name}.so.1", out handle) ? handle : 0;
    }
}
