using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Xunit;

namespace Treeline.Tests.Harness;

/// <summary>ILGPU's devices: those under test, and whatever is under test its own CPU accelerator and the first OpenCL device where there is one. For a few small launches: the accelerator is slow.</summary>
internal static class IlgpuDevices
{
    /// <summary>The devices' names.</summary>
    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Where(name => name.Split(':')[0] is "ilgpu-cpu" or "opencl" or "cuda").Append("opencl:0").Append("ilgpu-cpu").Distinct()];

    /// <summary>Those on which work goes on after a launch has returned.</summary>
    public static TheoryData<string> Asynchronous => [.. Names.Select(row => row.Data).Where(name => name != "ilgpu-cpu")];

    /// <summary>Behind a device's name: with kernels and threads as on a GPU.</summary>
    public const string Gpu = "/gpu";

    /// <summary>Opens one; a device that is not there is a skip, unless the machine is said to have OpenCL.</summary>
    public static IlgpuBackend Open(string name)
    {
        try
        {
            var backend = (IlgpuBackend)Backends.Open(name.Split('/')[0], new BackendOptions { AcceptWithoutGenericAddressSpace = true });
            if (!name.EndsWith(Gpu, StringComparison.Ordinal)) return backend;
            backend.UsesPatches = false;
            if (backend.Accelerator.MaxNumThreadsPerGroup >= RowGroup.Most) backend.RowThreads = RowGroup.Most;
            return backend;
        }
        catch (BackendUnavailableException e) when (Environment.GetEnvironmentVariable("TREELINE_REQUIRE_OPENCL") != "1")
        {
            Assert.Skip(e.Message);
            throw;
        }
    }

    /// <summary>True where small work gives what it should: the backend is usable.</summary>
    public static bool Works(KernelBackend backend)
    {
        using DeviceTensor x = backend.Upload<float>([1, 2, 3], 1, 3), y = backend.Upload<float>([10, 20, 30], 1, 3), sum = backend.Allocate(ElementType.Float32, 1, 3);
        backend.Add(x, y, sum);
        return backend.Download<float>(sum) is [11, 22, 33];
    }
}
