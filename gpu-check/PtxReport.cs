using System.Globalization;
using System.Reflection;
using ILGPU.Runtime.Cuda;

namespace Treeline.GpuCheck;

/// <summary>docs/ptx-report.md: what the assembler makes of every kernel.</summary>
internal static class PtxReport
{
    /// <summary>Writes the page.</summary>
    /// <param name="repository">The repository's folder.</param>
    /// <returns>0, or 2 where there is no assembler.</returns>
    public static int Write(string repository)
    {
        if (Ptxas.Find(repository) is not { } ptxas)
        {
            Console.Error.WriteLine($"ptx-report: {Ptxas.HowToGet}");
            return 2;
        }

        string page = Path.Combine(repository, "docs", "ptx-report.md");
        File.WriteAllText(page, Page(ptxas));
        Console.WriteLine($"written: {page}");
        return 0;
    }

    private static string Page(string ptxas)
    {
        using var kernels = new PtxKernels();
        var text = new StringWriter(CultureInfo.InvariantCulture) { NewLine = "\n" };
        text.WriteLine("# The kernels on NVIDIA's assembler");
        text.WriteLine();
        text.WriteLine($"Written by `./build.sh ptx-report`: every kernel of the ILGPU backend, generic ones in every form that is launched, compiled to PTX without a device and assembled by ptxas {Ptxas.Version(ptxas)}.");
        text.WriteLine("Registers and spills (bytes stored and loaded) are a thread's, shared memory (bytes, static) a group's; stack is memory for local arrays and for functions that were not inlined.");
        text.WriteLine("ILGPU names sm_80 as the target of what it compiles for sm_90; the assembler makes sm_90's instructions of it all the same. `tests/Kernels/PtxTests.cs` holds the limits.");
        text.WriteLine();
        text.WriteLine($"| kernel |{string.Concat(PtxKernels.Architectures.Select(architecture => $" {Target(architecture)}: registers | shared | stack | spills |"))}");
        text.WriteLine($"|---|{string.Concat(PtxKernels.Architectures.Select(_ => "---|---|---|---|"))}");
        foreach (MethodInfo kernel in PtxKernels.All)
        {
            text.Write($"| `{PtxKernels.Name(kernel)}` |");
            foreach (CudaArchitecture architecture in PtxKernels.Architectures)
            {
                Assembled made = Ptxas.Assemble(ptxas, kernels.Compile(kernel, architecture), Target(architecture));
                text.Write($" {made.Registers} | {made.Shared} | {made.Stack} | {made.SpillStores + made.SpillLoads} |");
            }

            text.WriteLine();
        }

        return text.ToString();
    }

    /// <summary>The assembler's name of an architecture.</summary>
    public static string Target(CudaArchitecture architecture) => string.Create(CultureInfo.InvariantCulture, $"sm_{architecture.Major}{architecture.Minor}");
}
