using System.Numerics.Tensors;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Kernels;

public class HostTensorTests
{
    [Fact]
    public void A_host_tensor_is_uploaded_without_its_gaps()
    {
        float[] numbers = [1, 2, 99, 3, 4, 99];
        var host = new ReadOnlyTensorSpan<float>(numbers, [2, 2], [3, 1]);
        using var backend = new OracleBackend();
        using DeviceTensor tensor = backend.Upload(host);
        Assert.Equal([2, 2], tensor.Shape.ToArray());
        Assert.Equal([1f, 2, 3, 4], backend.Download<float>(tensor));
    }
}
