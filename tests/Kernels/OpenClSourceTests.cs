using System.Reflection;
using ILGPU.Backends.OpenCL;
using ILGPU.Runtime.OpenCL;
using Treeline.GpuCheck;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>A program's OpenCL source does not depend on what was compiled before it.</summary>
public class OpenClSourceTests
{
    [Fact]
    public void Names_are_numbered_in_the_order_of_their_appearance()
    {
        int count = 0;
        Assert.Equal(
            "struct type_0_kernel { type_1* field_7; }; type_0 var12; L_2: goto L_2; x = type_1x; fma (var3)",
            OpenClSource.Renumbered("struct type_699_kernel { type_12* field_7; }; type_699 var12; L_4711: goto L_4711; x = type_12x; fma (var3)", ref count));
        Assert.Equal("prototype_12 L_3 L_4", OpenClSource.Renumbered("prototype_12 L_9 L_99", ref count));
        Assert.Equal(5, count);
    }

    [Fact]
    public void A_kernel_belongs_to_one_program_and_is_launched()
    {
        foreach (IReadOnlyList<KernelProgram> programs in (IReadOnlyList<KernelProgram>[])[IlgpuBackend.Programs.Cpu, IlgpuBackend.Programs.Gpu])
        {
            var listed = programs.SelectMany(program => program.Kernels).ToList();
            Assert.Equal(listed.Distinct(), listed);
        }

        foreach (MethodInfo kernel in All.SelectMany(program => program.Kernels)) Assert.True(PtxKernels.Launched.Contains(kernel), $"{PtxKernels.Name(kernel)} is part of a program, and never launched");
    }

    [Fact]
    public void A_program_reads_the_same_after_others()
    {
        using IlgpuBackend first = IlgpuDevices.Open("opencl:0"), second = IlgpuDevices.Open("opencl:0");
        KernelProgram[] programs = [.. All, .. PtxKernels.Launched.Except(All.SelectMany(program => program.Kernels)).Select(kernel => new KernelProgram(kernel))];
        var there = programs.ToDictionary(program => program, program => Source(first, program));
        foreach (KernelProgram program in programs.Reverse()) Assert.Equal(there[program], Source(second, program));
        Assert.All(there.Values, source => Assert.Contains("type_0", source, StringComparison.Ordinal));
    }

    // Built together: were they refused, each would be built alone, and nothing but time would tell.
    [Fact]
    public void A_driver_takes_every_program()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0");
        var accelerator = (CLAccelerator)backend.Accelerator;
        foreach (KernelProgram program in All) new OpenClProgram(accelerator, Devices.Register, program).Dispose();
    }

    private static IEnumerable<KernelProgram> All => IlgpuBackend.Programs.Cpu.Concat(IlgpuBackend.Programs.Gpu).Distinct();

    private static string Source(IlgpuBackend backend, KernelProgram program)
    {
        var kernels = new CLCompiledKernel[program.Kernels.Length];
        Parallel.For(0, kernels.Length, i => kernels[i] = OpenClSource.Translate((CLAccelerator)backend.Accelerator, program.Kernels[i], Devices.Register));
        return OpenClSource.Join(kernels);
    }
}
