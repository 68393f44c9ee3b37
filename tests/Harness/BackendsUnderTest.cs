using Treeline.Kernels;

namespace Treeline.Tests.Harness;

/// <summary>The backends that every theory runs on; a new backend is added here. The environment's TREELINE_TEST_BACKENDS (<c>cuda:0</c>, <c>cpu,opencl:0</c>, with kernels as on a GPU <c>opencl:0/gpu</c>) takes the list's place.</summary>
internal static class BackendsUnderTest
{
    /// <summary>One name a backend.</summary>
    public static string[] Names { get; } = Environment.GetEnvironmentVariable("TREELINE_TEST_BACKENDS") is { Length: > 0 } names
        ? names.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
        : ["oracle", "cpu"];

    /// <summary>The same, in the forms that must each be right by themselves: vector widths of this machine, thread counts.</summary>
    public static string[] Variants { get; } = !Names.Contains("cpu") ? [] :
        [.. Widths().Select(width => $"cpu/{width} lanes"), "cpu/1 thread", "cpu/3 threads"];

    /// <summary>Names whose results depend on a token's path alone, bit for bit.</summary>
    public static string[] LosslessNames { get; } = [.. Names.Where(IsLossless)];

    /// <summary>Names and variants whose results depend on a token's path alone, bit for bit.</summary>
    public static string[] Lossless { get; } = [.. Names.Concat(Variants).Where(IsLossless)];

    /// <summary>True for ILGPU's own accelerator, which is a thousand times slower than the others: small cases and one seed there.</summary>
    public static bool IsForDebugging(string name) => name.Split('/')[0] == "ilgpu-cpu";

    /// <summary>Opens a backend or a variant of one.</summary>
    public static KernelBackend Open(string name)
    {
        if (!name.Contains('/', StringComparison.Ordinal)) return Backends.Open(name, new BackendOptions { Threads = 2 });
        string[] words = name.Split('/')[1].Split(' ');
        if (words[0] == "gpu") return IlgpuDevices.Open(name);
        int number = int.Parse(words[0], System.Globalization.CultureInfo.InvariantCulture);
        return words[1] == "lanes"
            ? new CpuBackend(new BackendOptions { Threads = 2 }, number)
            : new CpuBackend(new BackendOptions { Threads = number });
    }

    private static IEnumerable<int> Widths() => new[] { 1, 4, 8, 16 }.Where(width => width <= Simd.Width);

    private static bool IsLossless(string name)
    {
        using KernelBackend backend = Open(name);
        return backend.IsLosslessToTheBit;
    }
}
