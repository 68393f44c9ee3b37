using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The full tier runs the kernels' tests again under the runtime's switches; this one sees that the switches do what they are there for.</summary>
public class SimdWidthTests
{
    [Theory]
    [InlineData("DOTNET_EnableAVX512", 8)]
    [InlineData("DOTNET_EnableAVX2", 4)]
    [InlineData("DOTNET_EnableHWIntrinsic", 1)]
    public void A_switch_of_the_runtime_narrows_the_vectors(string name, int widest)
    {
        bool off = Environment.GetEnvironmentVariable(name) == "0";
        Assert.True(Simd.Width <= (off ? widest : 16), $"{name}=0: expected at most {widest} lanes, got {Simd.Width}");
        using var backend = new CpuBackend();
        Assert.Contains(Simd.Width == 1 ? "scalar" : $"{32 * Simd.Width}-bit", backend.Description, StringComparison.Ordinal);
    }
}
