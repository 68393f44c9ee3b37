using System.Globalization;
using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.CPU;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Finds ILGPU's devices and opens them, each in a context of its own.</summary>
internal static class Devices
{
    private static readonly Lock Gate = new();
    private static readonly Dictionary<string, Stack<Device>> Idle = [];

    /// <summary>ILGPU's own CPU accelerator: one multiprocessor of 32 threads, so that groups of 32 fit.</summary>
    private static readonly CPUDevice Cpu = new(32, 32, 1);

    /// <summary>The names of a family's devices, usable or not.</summary>
    public static IEnumerable<BackendInfo> Discover(string family, bool acceptWithoutGenericAddressSpace)
    {
        if (family == "ilgpu-cpu") return [new BackendInfo(family, Describe(Cpu), "")];
        List<BackendInfo> found = [];
        try
        {
            using Context context = Create(family, (device, index, whyNot) =>
            {
                found.Add(new BackendInfo(Name(family, index), Describe(device), whyNot) { IsGpu = device is CudaDevice or CLDevice { DeviceType: CLDeviceType.CL_DEVICE_TYPE_GPU } });
                return false;
            }, acceptWithoutGenericAddressSpace);
        }
        catch (Exception e) when (e is AcceleratorException or DllNotFoundException or NotSupportedException or TypeInitializationException)
        {
            found.Add(new BackendInfo(Name(family, 0), $"no {family} device", e.Message));
        }

        return found;
    }

    /// <summary>Opens a device.</summary>
    /// <exception cref="BackendUnavailableException">There is none of that name, or it cannot be used; the message says why.</exception>
    public static IlgpuBackend Open(string family, string name, bool acceptWithoutGenericAddressSpace)
    {
        lock (Gate)
        {
            if (Idle.TryGetValue(name, out Stack<Device>? idle) && idle.TryPop(out Device? device)) return new IlgpuBackend(device);
        }

        return new IlgpuBackend(OpenDevice(family, name, acceptWithoutGenericAddressSpace));
    }

    /// <summary>Keeps a device whose backend has ended, with its compiled kernels, for the next one.</summary>
    /// <remarks>Two backends never share one: ILGPU's kernels take their arguments one by one, which two threads must not do to the same kernel.</remarks>
    public static void Return(Device device)
    {
        lock (Gate)
        {
            if (!Idle.TryGetValue(device.Name, out Stack<Device>? idle)) Idle[device.Name] = idle = new Stack<Device>();
            idle.Push(device);
        }
    }

    private static Device OpenDevice(string family, string name, bool acceptWithoutGenericAddressSpace)
    {
        string refused = $"no such device; {family} devices here: {string.Join(", ", Discover(family, acceptWithoutGenericAddressSpace).Select(info => info.Name).DefaultIfEmpty("none"))}";
        Context? context = null;
        try
        {
            context = family == "ilgpu-cpu"
                ? Context.Create(builder => Settings(builder).CPU(Cpu))
                : Create(family, (device, index, whyNot) =>
                {
                    if (Name(family, index) != name) return false;
                    refused = whyNot;
                    return whyNot.Length == 0;
                }, acceptWithoutGenericAddressSpace);
            // A context that was given no device has ILGPU's CPU accelerator.
            AcceleratorType type = family switch { "cuda" => AcceleratorType.Cuda, "opencl" => AcceleratorType.OpenCL, _ => AcceleratorType.CPU };
            global::ILGPU.Runtime.Device? chosen = family == "ilgpu-cpu" && name != family ? null : context.Devices.FirstOrDefault(device => device.AcceleratorType == type);
            if (chosen is not null)
            {
                Fused.Register(context);
                return new Device(name, context, chosen.CreateAccelerator(context));
            }
        }
        catch (Exception e) when (e is AcceleratorException or DllNotFoundException or NotSupportedException or TypeInitializationException)
        {
            context?.Dispose();
            throw new BackendUnavailableException($"backend: {name} cannot be opened: {e.Message}", e);
        }

        context.Dispose();
        throw new BackendUnavailableException($"backend: {name}: {refused}");
    }

    /// <summary>A context with the settings of all others and no device: for compiling where there is none.</summary>
    internal static Context CreateWithoutDevice()
    {
        Context context = Context.Create(builder => Settings(builder));
        Fused.Register(context);
        return context;
    }

    /// <summary>One line about a device.</summary>
    public static string Describe(global::ILGPU.Runtime.Device device) => string.Create(CultureInfo.InvariantCulture,
        $"ILGPU on {device.Name.Trim()}, {(device is CPUDevice ? "host memory" : $"{device.MemorySize >> 20:n0} MiB")}, groups of up to {device.MaxNumThreadsPerGroup}, {(device is CPUDevice ? "any" : $"{device.MaxSharedMemoryPerGroup >> 10} KiB")} shared memory");

    // O2 throughout: on PoCL the default leaves address spaces that do not compile.
    private static Context.Builder Settings(Context.Builder builder) => builder.Optimize(OptimizationLevel.O2).EnableAlgorithms();

    private static string Name(string family, int index) => string.Create(CultureInfo.InvariantCulture, $"{family}:{index}");

    private static Context Create(string family, Func<global::ILGPU.Runtime.Device, int, string, bool> take, bool acceptWithoutGenericAddressSpace)
    {
        int index = 0;
        DriverLibraries.Install();
        if (family == "cuda") return Context.Create(builder => Settings(builder).Cuda(device => take(device, index++, "")));
        return Context.Create(builder => Settings(builder).OpenCL(device =>
        {
            bool generic = device.Capabilities.GenericAddressSpace;
            if (!generic && acceptWithoutGenericAddressSpace) GenericAddressSpace.Claim(device);
            return take(device, index++, generic || acceptWithoutGenericAddressSpace ? ""
                : $"it reports no generic address space, which ILGPU asks for; these kernels do without: set BackendOptions.{nameof(BackendOptions.AcceptWithoutGenericAddressSpace)} or TREELINE_ACCEPT_WITHOUT_GENERIC_ADDRESS_SPACE=1");
        }));
    }
}
