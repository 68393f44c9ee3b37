using System.Diagnostics;
using System.Globalization;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;

namespace Treeline.Bench;

/// <summary>What the first use of each kernel of a model takes on a device: ILGPU's compiler, the driver's, the first launch. Drivers keep what they compile on disk: for the first time of all, that folder must be empty.</summary>
internal static class CompileTable
{
    private static readonly GenerationOptions[] Ways = [new() { MaxTokens = 70 }, new() { MaxTokens = 20, Drafter = Drafter.Medusa }, new() { MaxTokens = 20, Temperature = 0.8f, TopK = 40, TopP = 0.9f, Seed = 1 }];

    /// <summary>Prints the table: one token at a time over the end of a group, then trees, then drawn tokens.</summary>
    /// <param name="name">A device of ILGPU's.</param>
    /// <param name="path">A model's folder.</param>
    /// <returns>0, or 2 where there is no such backend or it is not ILGPU's.</returns>
    public static int Print(string name, string path)
    {
        using KernelBackend? opened = Open(name);
        if (opened is null) return 2;
        if (opened is not IlgpuBackend backend)
        {
            Console.Error.WriteLine($"compile: expected opencl:N, cuda:N or ilgpu-cpu, got {name}, which compiles nothing at run time");
            return 2;
        }

        Console.WriteLine($"{backend.Name}: {backend.Description}");
        using CausalModel model = CausalModel.Load(path, backend);
        double begun = 0;
        int known = 0;
        foreach (GenerationOptions way in Ways)
        {
            long began = Stopwatch.GetTimestamp();
            foreach (string piece in model.Generate("To be, or not to be, that is the question", way)) _ = piece;
            double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds;
            KernelUse[] used = [.. backend.Kernels.Skip(known)];
            known += used.Length;
            double compiling = used.Sum(kernel => kernel.FirstUse.TotalSeconds);
            begun += compiling;
            foreach (KernelUse kernel in used.OrderByDescending(kernel => kernel.FirstUse))
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {kernel.Kernel,-52} {kernel.FirstUse.TotalSeconds,6:f2} s{OfProgram(kernel)}"));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(way.Drafter != Drafter.None ? "trees" : way.Temperature > 0 ? "drawn tokens" : "one token at a time")}: {used.Length} more kernels, ready after {compiling:f2} s; {way.MaxTokens} tokens took {seconds:f2} s"));
        }

        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"all: {known} kernels, ready after {begun:f2} s"));
        return 0;
    }

    // Where it was the first of its program.
    private static string OfProgram(KernelUse kernel) => kernel.ProgramBuild.TotalMilliseconds < 5 ? ""
        : string.Create(CultureInfo.InvariantCulture, $", {kernel.ProgramBuild.TotalSeconds:f2} s of it its program: {kernel.Program}");

    private static KernelBackend? Open(string name)
    {
        try
        {
            return Backends.Open(name);
        }
        catch (BackendUnavailableException e)
        {
            Console.Error.WriteLine($"compile: {e.Message}");
            return null;
        }
    }
}
