namespace Treeline.Kernels.ILGPU;

/// <summary>ILGPU's families of devices; <see cref="Backends"/> finds this class by its name.</summary>
public static class BackendProviders
{
    /// <summary>CUDA, OpenCL, and ILGPU's own CPU accelerator.</summary>
    public static IEnumerable<IBackendProvider> All { get; } = [new Provider("cuda"), new Provider("opencl"), new Provider("ilgpu-cpu")];

    private sealed class Provider(string family) : IBackendProvider
    {
        public string Family => family;

        public IEnumerable<BackendInfo> Discover() => Devices.Discover(family, new BackendOptions().AcceptWithoutGenericAddressSpace);

        public KernelBackend Open(string name, BackendOptions options) => Devices.Open(family, name, options);
    }
}
