using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using global::ILGPU.Backends.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>OpenCL source that is the same text whenever a kernel is compiled.</summary>
/// <remarks>
/// ILGPU names types and labels by counters of its context: the same kernel reads differently after other kernels. Drivers that keep what they compile on disk find it by its text,
/// so without this they would compile it again in every process that uses kernels in another order, and for every device that is opened.
/// </remarks>
internal static partial class OpenClSource
{
    /// <summary>Numbers a kernel's names in the order of their appearance, before its source goes to the driver.</summary>
    public static void Settle(CLCompiledKernel kernel) => Source(kernel) = Renumbered(kernel.Source);

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
