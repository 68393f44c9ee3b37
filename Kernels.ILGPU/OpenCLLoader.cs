using System.Reflection;
using System.Runtime.InteropServices;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Finds the OpenCL loader: Linux distributions install <c>libOpenCL.so.1</c>, ILGPU asks for <c>OpenCL</c>, which only development packages provide.</summary>
internal static class OpenCLLoader
{
    private static readonly Lock Gate = new();
    private static bool _installed;

    /// <summary>Must come before ILGPU first looks at OpenCL; later calls do nothing.</summary>
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

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? paths)
    {
        if (NativeLibrary.TryLoad(name, assembly, paths, out nint handle)) return handle;
        return name == "OpenCL" && NativeLibrary.TryLoad("libOpenCL.so.1", out handle) ? handle : 0;
    }
}
