using System.Reflection;
using ILGPU.Runtime.OpenCL;
using Treeline.GpuCheck;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>A kernel's OpenCL source does not depend on what was compiled before it.</summary>
public class OpenClSourceTests
{
    [Fact]
    public void Names_are_numbered_in_the_order_of_their_appearance()
    {
        Assert.Equal(
            "struct type_0_kernel { type_1* field_7; }; type_0 var12; L_2: goto L_2; x = type_1x; fma (var3)",
            OpenClSource.Renumbered("struct type_699_kernel { type_12* field_7; }; type_699 var12; L_4711: goto L_4711; x = type_12x; fma (var3)"));
        Assert.Equal("prototype_12 L_0 L_1", OpenClSource.Renumbered("prototype_12 L_9 L_99"));
    }

    [Fact]
    public void A_kernel_reads_the_same_after_others()
    {
        using IlgpuBackend first = IlgpuDevices.Open("opencl:0"), second = IlgpuDevices.Open("opencl:0");
        var there = PtxKernels.All.ToDictionary(kernel => kernel, kernel => Source(first, kernel));
        foreach (MethodInfo kernel in PtxKernels.All.Reverse()) Assert.Equal(there[kernel], Source(second, kernel));
        Assert.All(there.Values, source => Assert.Contains("type_0", source, StringComparison.Ordinal));
    }

    private static string Source(IlgpuBackend backend, MethodInfo kernel) => OpenClSource.Compile((CLAccelerator)backend.Accelerator, kernel, Fused.Register).Source;
}
