namespace Treeline.Kernels;

/// <summary>Options that backends understand; one that does not apply is ignored by the backend.</summary>
public sealed record BackendOptions
{
    /// <summary>Number of threads; 0: one per core.</summary>
    public int Threads { get; init; }

    /// <summary>True: each thread stays on a core of its own.</summary>
    public bool PinThreads { get; init; }

    /// <summary>True: OpenCL devices that report no generic address space (PoCL before 4) are used all the same; the kernels do without it.</summary>
    /// <remarks>The default is what the environment variable <c>TREELINE_ACCEPT_WITHOUT_GENERIC_ADDRESS_SPACE</c> says: 1 for true.</remarks>
    public bool AcceptWithoutGenericAddressSpace { get; init; } = Environment.GetEnvironmentVariable("TREELINE_ACCEPT_WITHOUT_GENERIC_ADDRESS_SPACE") == "1";

    /// <summary>True: a CUDA backend works in the device's primary context, where the CUDA runtime and what builds on it (PyTorch) allocate, so that <see cref="KernelBackend.Wrap"/> takes their memory.</summary>
    /// <remarks>Otherwise each backend has a context of its own: a fault then ends that context alone.</remarks>
    public bool PrimaryContext { get; init; }

    /// <summary>True: only kernels that are lossless to the bit; on CUDA products then run on this library's kernel where cuBLAS would be faster. <see cref="KernelBackend.Describe(WeightForm)"/> says which runs.</summary>
    /// <remarks>The default is what the environment variable <c>TREELINE_LOSSLESS</c> says: 1 for true.</remarks>
    public bool Lossless { get; init; } = Environment.GetEnvironmentVariable("TREELINE_LOSSLESS") == "1";
}

/// <summary>A backend that may be opened by name.</summary>
/// <param name="Name">The name for <see cref="Backends.Open"/>.</param>
/// <param name="Description">The device.</param>
/// <param name="WhyNot">Why it cannot be used, empty where it can.</param>
public sealed record BackendInfo(string Name, string Description, string WhyNot)
{
    /// <summary>True where it can be opened.</summary>
    public bool IsUsable => WhyNot.Length == 0;

    /// <summary>True where the device is a GPU; an OpenCL device may be a CPU.</summary>
    public bool IsGpu { get; init; }
}

/// <summary>Something that opens backends: one per family of devices.</summary>
public interface IBackendProvider
{
    /// <summary>The part of a name before the colon, such as <c>cuda</c>.</summary>
    string Family { get; }

    /// <summary>The devices that are there, usable or not.</summary>
    IEnumerable<BackendInfo> Discover();

    /// <summary>Opens one of them.</summary>
    /// <param name="name">The whole name.</param>
    /// <param name="options">Options.</param>
    /// <exception cref="BackendUnavailableException">It cannot be used; the message says why.</exception>
    KernelBackend Open(string name, BackendOptions options);
}

/// <summary>Opens backends by name: <c>cpu</c>, <c>oracle</c>, <c>auto</c>, and what is registered or lies beside (<c>ilgpu-cpu</c>, <c>opencl:0</c>, <c>cuda:0</c>).</summary>
public static class Backends
{
    /// <summary>The environment variable that names the backend where nothing else does.</summary>
    public const string Variable = "TREELINE_BACKEND";

    private static readonly Lock Gate = new();
    private static readonly List<IBackendProvider> Providers = [new CpuBackendProvider(), new OracleBackendProvider()];

    // Families that live in assemblies of their own, looked for by name the first time somebody asks; the first assembly that is there provides.
    private static readonly (string Assembly, string[] Families)[] Known =
    [
        ("Treeline.Kernels.Cuda", ["cuda"]),
        ("Treeline.Kernels.ILGPU", ["cuda", "opencl", "ilgpu-cpu"]),
    ];

    private static bool _searched;

    /// <summary>Makes a provider known; it goes before the ones known so far. For programs whose assemblies cannot be found by name (trimmed ones), and for backends of your own.</summary>
    /// <param name="provider">The provider.</param>
    public static void Register(IBackendProvider provider)
    {
        ArgumentNullException.ThrowIfNull(provider);
        lock (Gate) Providers.Insert(0, provider);
    }

    /// <summary>All devices of all providers, usable or not.</summary>
    public static IReadOnlyList<BackendInfo> Discover()
    {
        lock (Gate)
        {
            Search();
            return [.. Providers.SelectMany(Devices).DistinctBy(info => info.Name)];
        }
    }

    // A driver that fails must not take the other backends with it.
    internal static IEnumerable<BackendInfo> Devices(IBackendProvider provider)
    {
        try
        {
            return [.. provider.Discover()];
        }
        catch (Exception e)
        {
            return [new BackendInfo(provider.Family, "its devices cannot be listed", e.Message)];
        }
    }

    /// <summary>The name that <see cref="Open"/> takes where none is given: what <see cref="Variable"/> says, else <c>cpu</c>.</summary>
    public static string DefaultName => Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } name ? name : "cpu";

    /// <summary>Opens a backend.</summary>
    /// <param name="name">Its name, or <c>auto</c>; null: <see cref="DefaultName"/>.</param>
    /// <param name="options">Options; null: the defaults.</param>
    /// <exception cref="BackendUnavailableException">There is none of that name, or it cannot be used here; the message says why and what there is.</exception>
    public static KernelBackend Open(string? name = null, BackendOptions? options = null)
    {
        if (name is not null) ArgumentException.ThrowIfNullOrEmpty(name);
        options ??= new BackendOptions();
        ArgumentOutOfRangeException.ThrowIfNegative(options.Threads, nameof(options));
        if (name is not null) return OpenNamed(name, options);
        try
        {
            return OpenNamed(DefaultName, options);
        }
        catch (BackendUnavailableException e)
        {
            throw new BackendUnavailableException($"environment variable {Variable}: {e.Message}", e);
        }
    }

    /// <summary>The backend that <c>auto</c> opens: the first usable GPU, else <c>cpu</c>.</summary>
    /// <param name="why">Why this one.</param>
    public static string Choose(out string why) => Choose(Discover(), out why);

    internal static string Choose(IReadOnlyList<BackendInfo> devices, out string why)
    {
        if (devices.FirstOrDefault(info => info is { IsUsable: true, IsGpu: true }) is { } gpu)
        {
            why = $"the first usable GPU: {gpu.Description}";
            return gpu.Name;
        }

        string[] others = [.. devices.Where(info => info.Name is not ("cpu" or "oracle" or "ilgpu-cpu"))
            .Select(info => info.IsUsable ? $"{info.Name} is no GPU: {info.Description}" : $"{info.Name} cannot be used: {info.WhyNot}")];
        why = others.Length == 0 ? "no usable GPU" : $"no usable GPU; {string.Join("; ", others)}";
        return "cpu";
    }

    private static KernelBackend OpenNamed(string name, BackendOptions options)
    {
        if (name == "auto") name = Choose(out _);
        string family = name.Split(':')[0];
        lock (Gate)
        {
            Search();
            foreach (IBackendProvider provider in Providers)
                if (provider.Family == family) return provider.Open(name, options);
        }

        string? package = Known.FirstOrDefault(known => known.Families.Contains(family)).Assembly;
        throw new BackendUnavailableException(package is null
            ? $"backend: expected one of {string.Join(", ", Discover().Select(info => info.Name))} or auto, got {name}"
            : $"backend: {name} needs the package {package}, which is not present; usable here: {string.Join(", ", Discover().Where(info => info.IsUsable).Select(info => info.Name))}");
    }

    private static void Search()
    {
        if (_searched) return;
        _searched = true;
        foreach ((string assembly, string[] families) in Known)
        {
            if (families.All(family => Providers.Any(provider => provider.Family == family))) continue;
            Type? type;
            try
            {
                type = Type.GetType($"{assembly}.BackendProviders, {assembly}", throwOnError: false);
            }
            catch (Exception e) when (e is IOException or BadImageFormatException)
            {
                continue;                                   // an assembly that does not load provides nothing
            }

            if (type?.GetProperty("All")?.GetValue(null) is IEnumerable<IBackendProvider> found)
                Providers.AddRange(found.Where(provider => !Providers.Any(known => known.Family == provider.Family)));
        }
    }
}
