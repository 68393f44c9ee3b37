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
    private static readonly Lock Gate = new(), Listing = new();
    private static readonly Dictionary<(string Name, bool WithConsent, bool InPrimaryContext), Stack<Device>> Idle = [];

    /// <summary>ILGPU's own CPU accelerator: one multiprocessor of 32 threads, so that groups of 32 fit.</summary>
    private static readonly CPUDevice Cpu = new(32, 32, 1);

    /// <summary>The names of a family's devices, usable or not; where there is none, one line that says why.</summary>
    public static IEnumerable<BackendInfo> Discover(string family, bool acceptWithoutGenericAddressSpace)
    {
        if (family == "ilgpu-cpu") return [new BackendInfo(family, Describe(Cpu), "")];
        List<BackendInfo> found = [];
        try
        {
            using Context context = Create(family, (device, index, whyNot) =>
            {
                found.Add(new BackendInfo(Name(family, index), Describe(device), whyNot) { IsGpu = IsGpu(device) });
                return false;
            }, acceptWithoutGenericAddressSpace);
            if (found.Count == 0) found.Add(new BackendInfo(Name(family, 0), "no device", Drivers.WhyNone(family)));
        }
        catch (Exception e) when (IsDriverFailure(e))
        {
            found.Add(new BackendInfo(Name(family, 0), "no device", e.Message));
        }

        return found;
    }

    /// <summary>Opens a device.</summary>
    /// <exception cref="BackendUnavailableException">There is none of that name, or it cannot be used; the message says why.</exception>
    public static IlgpuBackend Open(string family, string name, BackendOptions options)
    {
        Device device = TakeIdle(name, options) ?? OpenDevice(family, name, options);
        try
        {
            return new IlgpuBackend(device, options);
        }
        catch (AcceleratorException e)
        {
            device.Discard();
            throw new BackendUnavailableException($"backend: {name} cannot be opened: {e.Message}", e);
        }
    }

    /// <summary>Keeps a device whose backend has ended, with its compiled kernels, for the next one.</summary>
    /// <remarks>Two backends never share one: ILGPU's kernels take their arguments one by one, which two threads must not do to the same kernel.</remarks>
    public static void Return(Device device)
    {
        lock (Gate)
        {
            var kind = (device.Name, device.WithConsent, device.InPrimaryContext);
            if (!Idle.TryGetValue(kind, out Stack<Device>? idle)) Idle[kind] = idle = new Stack<Device>();
            idle.Push(device);
        }
    }

    private static Device? TakeIdle(string name, BackendOptions options)
    {
        lock (Gate)
        {
            // One that needs consent is not handed to those who have not given it.
            foreach (bool withConsent in options.AcceptWithoutGenericAddressSpace ? (bool[])[false, true] : [false])
                if (Idle.TryGetValue((name, withConsent, IsPrimary(name, options)), out Stack<Device>? idle) && idle.TryPop(out Device? device)) return device;
            return null;
        }
    }

    private static bool IsPrimary(string name, BackendOptions options) => options.PrimaryContext && name.StartsWith("cuda", StringComparison.Ordinal);

    private static Device OpenDevice(string family, string name, BackendOptions options)
    {
        bool accepts = options.AcceptWithoutGenericAddressSpace;
        string? refused = null;
        bool needsConsent = false;
        Context? context = null;
        try
        {
            context = family == "ilgpu-cpu"
                ? Context.Create(builder => Settings(builder).CPU(Cpu))
                : Create(family, (device, index, whyNot) =>
                {
                    if (Name(family, index) != name) return false;
                    refused = whyNot;
                    needsConsent = device is CLDevice { Capabilities.GenericAddressSpace: false };
                    return whyNot.Length == 0;
                }, accepts);
            // A context that was given no device has ILGPU's CPU accelerator.
            AcceleratorType type = family switch { "cuda" => AcceleratorType.Cuda, "opencl" => AcceleratorType.OpenCL, _ => AcceleratorType.CPU };
            global::ILGPU.Runtime.Device? chosen = family == "ilgpu-cpu" && name != family ? null : context.Devices.FirstOrDefault(device => device.AcceleratorType == type);
            if (chosen is not null)
            {
                Register(context);
                Accelerator accelerator = chosen.CreateAccelerator(context);
                bool isPrimary = IsPrimary(name, options);
                if (isPrimary) PrimaryContext.Adopt((CudaAccelerator)accelerator);
                return new Device(name, context, accelerator, needsConsent, isPrimary);
            }
        }
        catch (Exception e)
        {
            context?.Dispose();
            if (!IsDriverFailure(e)) throw;
            throw new BackendUnavailableException($"backend: {name} cannot be opened: {e.Message}", e);
        }

        context.Dispose();
        throw new BackendUnavailableException($"backend: {name}: {refused ?? $"no such device; {WhatThereIs(family, accepts)}"}");
    }

    /// <summary>Tells a context of the functions of these kernels that ILGPU does not know.</summary>
    public static void Register(Context context)
    {
        Fused.Register(context);
        Patch.Register(context);
    }

    /// <summary>A context with the settings of all others and no device: for compiling where there is none.</summary>
    /// <param name="register">Tells it of functions that ILGPU does not know; null: those of these kernels.</param>
    internal static Context CreateWithoutDevice(Action<Context>? register = null)
    {
        Context context = Context.Create(builder => Settings(builder));
        (register ?? Register)(context);
        return context;
    }

    private static string WhatThereIs(string family, bool acceptWithoutGenericAddressSpace)
    {
        BackendInfo[] found = [.. Discover(family, acceptWithoutGenericAddressSpace)];
        return found is [{ IsUsable: false, Description: "no device" } none] ? none.WhyNot : $"{family} devices here: {string.Join(", ", found.Select(info => info.Name))}";
    }

    // What ILGPU and its drivers throw where they cannot: their own errors, a library that is missing or lacks a function, an architecture that ILGPU does not know.
    private static bool IsDriverFailure(Exception e) =>
        e is AcceleratorException or DllNotFoundException or EntryPointNotFoundException or BadImageFormatException or NotSupportedException or TypeInitializationException;

    /// <summary>True for a GPU; an OpenCL device may be a CPU.</summary>
    public static bool IsGpu(global::ILGPU.Runtime.Device device) => device is CudaDevice or CLDevice { DeviceType: CLDeviceType.CL_DEVICE_TYPE_GPU };

    /// <summary>True for a CPU, whose threads have vector registers of their own and one memory for all address spaces; an OpenCL device may be neither CPU nor GPU.</summary>
    public static bool IsCpu(global::ILGPU.Runtime.Device device) => device is CPUDevice || (device is CLDevice opencl && (opencl.DeviceType & CLDeviceType.CL_DEVICE_TYPE_CPU) != 0);

    /// <summary>One line about a device.</summary>
    public static string Describe(global::ILGPU.Runtime.Device device) => string.Create(CultureInfo.InvariantCulture,
        $"ILGPU on {device.Name.Trim()}, {(device is CPUDevice ? "host memory" : $"{device.MemorySize >> 20:n0} MiB")}, groups of up to {device.MaxNumThreadsPerGroup}, {(device is CPUDevice ? "any" : $"{device.MaxSharedMemoryPerGroup >> 10} KiB")} shared memory");

    // O2 throughout: on PoCL the default leaves address spaces that do not compile.
    private static Context.Builder Settings(Context.Builder builder) => builder.Optimize(OptimizationLevel.O2).EnableAlgorithms();

    private static string Name(string family, int index) => string.Create(CultureInfo.InvariantCulture, $"{family}:{index}");

    private static Context Create(string family, Func<global::ILGPU.Runtime.Device, int, string, bool> take, bool acceptWithoutGenericAddressSpace)
    {
        // One thread at a time: PoCL gives no devices to one that asks while it starts for another.
        using Lock.Scope listing = Listing.EnterScope();
        int index = 0;
        DriverLibraries.Install();
        if (family == "cuda") return Context.Create(builder => Settings(builder).Cuda(device => take(device, index++, Drivers.WhyNot(device))));
        return Context.Create(builder => Settings(builder).OpenCL(device =>
        {
            bool generic = device.Capabilities.GenericAddressSpace;
            bool isTaken = take(device, index++, generic || acceptWithoutGenericAddressSpace ? ""
                : $"it reports no generic address space, which ILGPU asks for; these kernels do without: set BackendOptions.{nameof(BackendOptions.AcceptWithoutGenericAddressSpace)} or TREELINE_ACCEPT_WITHOUT_GENERIC_ADDRESS_SPACE=1");
            if (isTaken && !generic) GenericAddressSpace.Claim(device);
            return isTaken;
        }));
    }
}
