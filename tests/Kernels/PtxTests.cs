using System.Reflection;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using Treeline.GpuCheck;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The kernels for CUDA, without a GPU: ILGPU compiles all of them, and NVIDIA's assembler takes what it makes.</summary>
public class PtxTests
{
    /// <summary>Static shared memory that every card gives a group without being asked.</summary>
    private const int SharedLimit = 48 << 10;

    /// <summary>Bytes of registers that a thread may have to keep in memory: none.</summary>
    private const int SpillLimit = 0;

    public static TheoryData<CudaArchitecture> Architectures => [.. PtxKernels.Architectures];

    [Fact]
    public void No_kernel_is_forgotten()
    {
        var found = PtxKernels.Launched.Select(kernel => kernel.IsGenericMethod ? kernel.GetGenericMethodDefinition() : kernel).ToHashSet();
        Assert.NotEmpty(found);
        foreach (MethodInfo kernel in PtxKernels.Declared) Assert.True(found.Contains(kernel), $"{kernel.Name} is never launched: a kernel that is not loaded by name cannot be found, one that is not used should go");
    }

    // Those that call what CUDA has not are left out by themselves: no other may go with them.
    [Fact]
    public void No_kernel_but_the_patches_is_left_out()
    {
        var left = PtxKernels.Launched.Except(PtxKernels.All).Select(kernel => kernel.Name).ToHashSet();
        Assert.Equal(["FlashClosePatchesKernel", "FlashPatchesKernel", "FlashStorePatchesKernel", "FlashWalkKernel", "LinearPatchesKernel"], left.Order(StringComparer.Ordinal));
    }

    // A value that is compiled in makes a kernel of its own of each of its values; these would have to be listed.
    [Fact]
    public void No_kernel_has_forms_beyond_its_types()
    {
        foreach (MethodInfo kernel in PtxKernels.Launched)
            Assert.DoesNotContain(kernel.GetParameters(), parameter => parameter.ParameterType.IsGenericType && parameter.ParameterType.GetGenericTypeDefinition() == typeof(SpecializedValue<>));
    }

    [Fact]
    public void The_report_has_every_kernel()
    {
        string[] lines = File.ReadAllLines(Path.Combine(Golden.Repository, "docs", "ptx-report.md"));
        string[] shown = [.. lines.Where(line => line.StartsWith("| `", StringComparison.Ordinal)).Select(line => line.Split('`')[1])];
        string[] wanted = [.. PtxKernels.All.Select(PtxKernels.Name)];
        Assert.True(wanted.SequenceEqual(shown), $"docs/ptx-report.md is out of date, ./build.sh ptx-report writes it anew; missing: {string.Join(", ", wanted.Except(shown))}; no longer there: {string.Join(", ", shown.Except(wanted))}");
    }

    [Theory, MemberData(nameof(Architectures)), Trait("tier", "full")]
    public void Every_kernel_compiles(CudaArchitecture architecture)
    {
        using var kernels = new PtxKernels();
        foreach (MethodInfo kernel in PtxKernels.All)
        {
            string ptx = kernels.Compile(kernel, architecture);
            Assert.Contains($".entry Kernel_{kernel.Name}", ptx, StringComparison.Ordinal);
            // The multiply-add is an instruction; the function of that name, which ILGPU declares beside it, has no body to call.
            Assert.False(ptx.Split('\n').Any(line => line.Contains("call", StringComparison.Ordinal) && line.Contains("MultiplyAdd", StringComparison.Ordinal)), $"{PtxKernels.Name(kernel)} calls its multiply-add");
        }
    }

    [Theory, MemberData(nameof(Architectures)), Trait("tier", "full")]
    public void The_assembler_takes_every_kernel(CudaArchitecture architecture)
    {
        string? ptxas = Ptxas.Find(Golden.Repository);
        if (ptxas is null) Assert.Skip(Ptxas.HowToGet);
        Assert.SkipWhen(architecture == CudaArchitecture.SM_70 && Ptxas.Version(ptxas).Major >= 13, $"{ptxas} is of CUDA {Ptxas.Version(ptxas)}, which no longer knows sm_70");
        using var kernels = new PtxKernels();
        foreach (MethodInfo kernel in PtxKernels.All)
        {
            string name = $"{PtxKernels.Name(kernel)} on {PtxReport.Target(architecture)}";
            Assembled made = Ptxas.Assemble(ptxas, kernels.Compile(kernel, architecture), PtxReport.Target(architecture));
            Assert.True(made.Registers > 0, $"{name}: what the assembler said was not understood");
            Assert.True(made.SpillStores + made.SpillLoads <= SpillLimit, $"{name}: spills {made.SpillStores} bytes out and {made.SpillLoads} in, at most {SpillLimit} are wanted");
            Assert.True(made.Shared <= SharedLimit, $"{name}: {made.Shared} bytes of shared memory, at most {SharedLimit} are there");
        }
    }

    [Fact, Trait("tier", "full")]
    public void The_assembler_is_understood_and_refuses_nonsense()
    {
        string? ptxas = Ptxas.Find(Golden.Repository);
        if (ptxas is null) Assert.Skip(Ptxas.HowToGet);
        const string Head = ".version 7.8\n.target sm_80\n.address_size 64\n";
        const string Shared = """
            .visible .entry k(.param .u64 to) {
              .reg .b64 %rd<3>; .reg .f32 %f<2>;
              .shared .align 4 .b8 s[512];
              ld.param.u64 %rd1, [to]; mov.u64 %rd2, s; cvta.shared.u64 %rd2, %rd2;
              ld.volatile.f32 %f1, [%rd2]; st.f32 [%rd1], %f1; ret;
            }
            """;
        Assert.Equal(512, Ptxas.Assemble(ptxas, Head + Shared, "sm_80").Shared);
        Assert.Contains("nonsense", Assert.Throws<InvalidOperationException>(() => Ptxas.Assemble(ptxas, Head + "nonsense", "sm_80")).Message, StringComparison.Ordinal);
    }
}
