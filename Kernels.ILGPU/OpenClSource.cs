using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using global::ILGPU;
using global::ILGPU.Backends.OpenCL;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>OpenCL source that is the same text whenever a kernel is compiled.</summary>
/// <remarks>
/// ILGPU orders and names what it writes by counters, so that the same kernel reads differently after other kernels. Drivers that keep what they compile on disk find it by its text:
/// without this they would compile it again in every process that uses kernels in another order, and for every device that is opened.
/// </remarks>
internal static partial class OpenClSource
{
    /// <summary>Translates a kernel, in a context of its own (one takes a few milliseconds): some counters begin anew there, and what goes wrong leaves nothing behind.</summary>
    /// <param name="accelerator">The device that it is for.</param>
    /// <param name="kernel">The kernel.</param>
    /// <param name="register">Tells the context of functions that ILGPU does not know.</param>
    public static CLCompiledKernel Compile(CLAccelerator accelerator, MethodInfo kernel, Action<Context> register)
    {
        using Context context = Devices.CreateWithoutDevice(register);
        using var backend = new CLBackend(context, accelerator.Capabilities, accelerator.Vendor, accelerator.Backend.CLStdVersion);
        var compiled = (CLCompiledKernel)backend.Compile(KernelCompiler.Entry(kernel), default);
        Source(compiled) = Renumbered(compiled.Source);     // other counters are the process's
        return compiled;
    }

    /// <summary>The source with its names numbered in the order of their appearance.</summary>
    internal static string Renumbered(string source)
    {
        var numbers = new Dictionary<string, int>();
        return Name().Replace(source, match =>
        {
            if (!numbers.TryGetValue(match.Value, out int number)) numbers[match.Value] = number = numbers.Count;
            return string.Create(CultureInfo.InvariantCulture, $"{match.Groups[1].Value}_{number}");
        });
    }

    // Types, and the labels of blocks; what follows a type's number ("_kernel") stays.
    [GeneratedRegex(@"\b(type|L)_\d+(?!\d)")]
    private static partial Regex Name();

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "<Source>k__BackingField")]
    private static extern ref string Source(CLCompiledKernel kernel);
}
