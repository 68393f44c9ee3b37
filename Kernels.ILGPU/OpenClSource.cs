using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.RegularExpressions;
using global::ILGPU;
using global::ILGPU.Backends.OpenCL;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>OpenCL source that is the same text whenever kernels are compiled.</summary>
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
    public static CLCompiledKernel Translate(CLAccelerator accelerator, MethodInfo kernel, Action<Context> register)
    {
        using Context context = Devices.CreateWithoutDevice(register);
        using var backend = new CLBackend(context, accelerator.Capabilities, accelerator.Vendor, accelerator.Backend.CLStdVersion);
        return (CLCompiledKernel)backend.Compile(KernelCompiler.Entry(kernel), default);
    }

    /// <summary>The source of a program: its kernels in order, each by the name of <see cref="Name"/>. Other counters are the process's, so that what they number is numbered anew.</summary>
    public static string Join(IReadOnlyList<CLCompiledKernel> kernels)
    {
        var program = new StringBuilder();
        int count = 0;
        for (int i = 0; i < kernels.Count; i++)
            program.Append(Renumbered(kernels[i].Source, ref count)).Replace($"kernel void {kernels[i].Name}(", $"kernel void {Name(kernels, i)}(");
        string text = program.ToString();
        return text.Contains("patch_", StringComparison.Ordinal) ? Patch.OpenCL + text : text;
    }

    /// <summary>A kernel's name in its program: the forms of a generic one have but one name of ILGPU's.</summary>
    public static string Name(IReadOnlyList<CLCompiledKernel> kernels, int index) => string.Create(CultureInfo.InvariantCulture, $"{kernels[index].Name}_{index}");

    /// <summary>A kernel's source with its names numbered in the order of their appearance.</summary>
    /// <param name="source">The source.</param>
    /// <param name="count">Names before it, which it moves on.</param>
    internal static string Renumbered(string source, ref int count)
    {
        int next = count;
        var numbers = new Dictionary<string, int>();
        string renumbered = Numbered().Replace(source, match =>
        {
            if (!numbers.TryGetValue(match.Value, out int number)) numbers[match.Value] = number = next++;
            return string.Create(CultureInfo.InvariantCulture, $"{match.Groups[1].Value}_{number}");
        });
        count = next;
        return renumbered;
    }

    // Types, and the labels of blocks; what follows a type's number ("_kernel") stays.
    [GeneratedRegex(@"\b(type|L)_\d+(?!\d)")]
    private static partial Regex Numbered();
}
