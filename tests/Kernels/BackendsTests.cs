using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Finding and opening backends.</summary>
public class BackendsTests
{
    [Fact]
    public void What_there_is_is_listed_and_opens()
    {
        foreach (BackendInfo info in Backends.Discover().Where(info => info.IsUsable))
        {
            using KernelBackend backend = Backends.Open(info.Name);
            Assert.Equal(info.Name, backend.Name);
        }

        Assert.Superset(new HashSet<string> { "cpu", "oracle" }, Backends.Discover().Select(info => info.Name).ToHashSet());
    }

    [Fact]
    public void A_name_that_is_nobodys_is_refused_with_the_names_that_are()
    {
        string message = Assert.Throws<BackendUnavailableException>(() => Backends.Open("abacus")).Message;
        Assert.StartsWith("backend: expected one of ", message, StringComparison.Ordinal);
        Assert.EndsWith(" or auto, got abacus", message, StringComparison.Ordinal);
        Assert.Contains("cpu", message, StringComparison.Ordinal);
        Assert.Throws<BackendUnavailableException>(() => Backends.Open("cpu:1"));
        Assert.Throws<ArgumentOutOfRangeException>(() => Backends.Open("cpu", new BackendOptions { Threads = -1 }));
    }

    [Fact]
    public void A_driver_that_fails_is_listed_as_not_usable()
    {
        BackendInfo info = Assert.Single(Backends.Devices(new FailingProvider()));
        Assert.Equal(("broken", false, "the driver says no"), (info.Name, info.IsUsable, info.WhyNot));
    }

    [Fact]
    public void Pinned_threads_compute_the_same()
    {
        float[] numbers = new Random(5).Floats(64 * 300);
        float[][] outputs = [.. new[] { false, true }.Select(pin =>
        {
            using var backend = new CpuBackend(new BackendOptions { Threads = 3, PinThreads = pin });
            using DeviceTensor input = backend.Upload<float>(numbers, 64, 300), output = backend.Allocate(ElementType.Float32, 64, 64);
            using WeightMatrix weight = backend.Pack(input, WeightForm.Float32);
            for (int i = 0; i < 50; i++) backend.Linear(input, weight, null, output);
            Assert.DoesNotContain("does not let", backend.Description, StringComparison.Ordinal);
            return backend.Download<float>(output);
        })];
        Assert.Equal(outputs[0], outputs[1]);
    }

    [Fact]
    public unsafe void Foreign_memory_that_is_wrapped_twice_is_known_to_be_shared()
    {
        using var backend = new CpuBackend(new BackendOptions { Threads = 1 });
        float[] memory = new float[4 * 16];
        fixed (float* start = memory)
        {
            using DeviceTensor input = backend.Wrap((nint)start, ElementType.Float32, [4, 8], [16, 1]);
            using DeviceTensor beside = backend.Wrap((nint)(start + 8), ElementType.Float32, [4, 8], [16, 1]);
            using DeviceTensor across = backend.Wrap((nint)(start + 4), ElementType.Float32, [4, 8], [16, 1]);
            using WeightMatrix weight = backend.Pack(backend.Upload<float>(new float[64], 8, 8), WeightForm.Float32);
            backend.Linear(input, weight, null, beside);
            Assert.Equal("output: shares memory with input (Parameter 'output')", Assert.Throws<ArgumentException>(() => backend.Linear(input, weight, null, across)).Message);
        }
    }

    private sealed class FailingProvider : IBackendProvider
    {
        public string Family => "broken";

        public IEnumerable<BackendInfo> Discover() => throw new DllNotFoundException("the driver says no");

        public KernelBackend Open(string name, BackendOptions options) => throw new BackendUnavailableException(name);
    }
}
