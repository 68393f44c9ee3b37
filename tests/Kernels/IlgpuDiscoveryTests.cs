using System.Diagnostics;
using System.Runtime.InteropServices;
using ILGPU.Runtime.Cuda;
using Treeline.Cli;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Treeline.Tests.Managed;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Devices that are not there or cannot be used: a line that says why, and a refusal that says the same.</summary>
public class IlgpuDiscoveryTests
{
    [Theory]
    [InlineData("opencl")]
    [InlineData("cuda")]
    public void A_family_always_has_a_line(string family)
    {
        BackendInfo[] found = [.. Devices.Discover(family, acceptWithoutGenericAddressSpace: true)];
        Assert.Equal(Enumerable.Range(0, found.Length).Select(i => $"{family}:{i}"), found.Select(info => info.Name));
        Assert.NotEmpty(found);
        foreach (BackendInfo info in found.Where(info => !info.IsUsable))
            Assert.Contains(info.WhyNot, Assert.Throws<BackendUnavailableException>(() => Devices.Open(family, info.Name, new BackendOptions { AcceptWithoutGenericAddressSpace = true })).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_a_driver_CUDA_is_refused_by_the_librarys_name()
    {
        if (NativeLibrary.TryLoad("libcuda.so.1", out _)) Assert.Skip("this machine has a CUDA driver");
        BackendInfo info = Assert.Single(Backends.Discover(), info => info.Name.StartsWith("cuda", StringComparison.Ordinal));
        Assert.Equal(("cuda:0", "no device", false), (info.Name, info.Description, info.IsUsable));
        Assert.StartsWith("no CUDA driver: libcuda.so.1 ", info.WhyNot, StringComparison.Ordinal);
        foreach (string name in (string[])["cuda:0", "cuda:7", "cuda"])
            Assert.Equal($"backend: {name}: no such device; {info.WhyNot}", Assert.Throws<BackendUnavailableException>(() => Backends.Open(name)).Message);
        Backends.Choose(out string why);
        Assert.Contains($"cuda:0 cannot be used: {info.WhyNot}", why, StringComparison.Ordinal);
    }

    // A driver older than any that ILGPU knows, each one's first and last, and one that is newer than ILGPU itself.
    [Fact]
    public void A_driver_may_be_newer_than_ILGPU_but_not_too_old()
    {
        Assert.Equal("", Drivers.WhyNot(CudaArchitecture.SM_90, CudaDriverVersion.FromMajorMinor(13, 0)));
        Assert.Equal("", Drivers.WhyNot(CudaArchitecture.SM_90, CudaDriverVersion.FromMajorMinor(40, 2)));
        Assert.Equal("", Drivers.WhyNot(CudaArchitecture.SM_70, CudaDriverVersion.FromMajorMinor(11, 8)));
        Assert.Equal("its driver is too old: it has CUDA 11.0, ILGPU needs 11.8 or newer for SM_90", Drivers.WhyNot(CudaArchitecture.SM_90, CudaDriverVersion.FromMajorMinor(11, 0)));
    }

    [Fact]
    public void CuBLAS_is_looked_for_by_its_newest_name_and_in_the_toolkit()
    {
        Assert.Equal(
            ["libcublas.so.13", "/opt/cuda/lib64/libcublas.so.12", "/opt/cuda/lib64/libcublas.so.13", "/usr/local/cuda/lib64/libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so.13"],
            DriverLibraries.CuBlasPaths("libcublas.so.12", "/opt/cuda").Select(path => path.Replace('\\', '/')));
        Assert.Equal(["cublas64_13.dll"], DriverLibraries.CuBlasPaths("cublas64_12.dll", null));
        Assert.Empty(DriverLibraries.CuBlasPaths("libcurand.so.10", "/opt/cuda"));
    }

    [Fact]
    public void Lossless_products_are_a_choice_where_a_library_has_others()
    {
        Assert.SkipUnless(Devices.Discover("cuda", acceptWithoutGenericAddressSpace: false).First().IsUsable, "no CUDA device here");
        using KernelBackend fast = Backends.Open("cuda:0", new BackendOptions { Lossless = false }), lossless = Backends.Open("cuda:0", new BackendOptions { Lossless = true });
        Assert.True(lossless.IsLosslessToTheBit);
        Assert.Equal("own kernel, lossless to the bit (cuBLAS is left out: only lossless kernels were asked for)", lossless.Describe(WeightForm.Float32));
        if (fast.IsLosslessToTheBit) Assert.Equal("own kernel, lossless to the bit (cuBLAS is not here (libcublas of CUDA 11, 12 or 13))", fast.Describe(WeightForm.Float32));
        else Assert.Matches("^cuBLAS [0-9]+, not lossless to the bit$", fast.Describe(WeightForm.Float32));
        Assert.StartsWith("own kernel, lossless to the bit", fast.Describe(WeightForm.BFloat16), StringComparison.Ordinal);
    }

    [Fact, Trait("needs", "sdk")]
    public void A_loader_without_drivers_says_so_in_the_list_and_at_the_opening()
    {
        IlgpuDevices.Open("opencl:0").Dispose();            // there is a loader
        using var empty = new TemporaryFolder();
        (int code, string output, string _) = Treeline(empty.Path, "info");
        Assert.Equal(ExitCodes.Success, code);
        Assert.Contains("the OpenCL loader finds no driver", output, StringComparison.Ordinal);
        (code, output, string error) = Treeline(empty.Path, "generate", "--model", Path.Combine(Golden.Repository, "models", "shakespeare-2m"), "--prompt", "To be", "--backend", "opencl:0");
        Assert.Equal((ExitCodes.Unavailable, ""), (code, output));
        Assert.Contains("backend: opencl:0: no such device; the OpenCL loader finds no driver", error, StringComparison.Ordinal);
        Assert.Single(error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Fact]
    public void A_device_that_needs_consent_is_not_handed_on_to_those_who_have_not_given_it()
    {
        IlgpuBackend consented = IlgpuDevices.Open("opencl:0");
        global::ILGPU.Runtime.Accelerator accelerator = consented.Accelerator;
        consented.Dispose();
        BackendInfo info = Devices.Discover("opencl", acceptWithoutGenericAddressSpace: false).First();
        if (info.IsUsable)
        {
            // It needs none: all may have it.
            using IlgpuBackend open = Devices.Open("opencl", "opencl:0", new BackendOptions { AcceptWithoutGenericAddressSpace = false });
            Assert.Same(accelerator, open.Accelerator);
            return;
        }

        Assert.Contains(nameof(BackendOptions.AcceptWithoutGenericAddressSpace), info.WhyNot, StringComparison.Ordinal);
        Assert.Equal($"backend: opencl:0: {info.WhyNot}", Assert.Throws<BackendUnavailableException>(() => Devices.Open("opencl", "opencl:0", new BackendOptions { AcceptWithoutGenericAddressSpace = false })).Message);
    }

    private static (int Code, string Output, string Error) Treeline(string drivers, params string[] args)
    {
        var start = new ProcessStartInfo("dotnet", [typeof(Program).Assembly.Location, .. args]) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["OCL_ICD_VENDORS"] = drivers;     // where the loader looks for drivers
        start.Environment.Remove(Backends.Variable);
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.Result);
    }
}
