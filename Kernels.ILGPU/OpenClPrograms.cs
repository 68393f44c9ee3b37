using System.Diagnostics;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using global::ILGPU;
using global::ILGPU.Backends;
using global::ILGPU.Backends.OpenCL;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>The programs of an OpenCL device, each built at the first use of one of its kernels.</summary>
internal sealed class OpenClPrograms(CLAccelerator accelerator, Action<Context> register, IEnumerable<KernelProgram> programs) : IDisposable
{
    private readonly Dictionary<MethodInfo, KernelProgram> _joint = programs.SelectMany(program => program.Kernels.Select(kernel => (kernel, program))).ToDictionary();
    private readonly Dictionary<KernelProgram, OpenClProgram?> _built = [];
    private readonly List<OpenClProgram> _alone = [];

    /// <summary>Loads a kernel.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="groupSize">Threads of a group where it runs once for each index, else 0.</param>
    /// <param name="use">Is told what its program took.</param>
    public Kernel Load(MethodInfo kernel, int groupSize, KernelUse use)
    {
        long started = Stopwatch.GetTimestamp();
        OpenClProgram program = (_joint.TryGetValue(kernel, out KernelProgram? joint) ? Joint(joint) : null) ?? Alone(kernel);
        use.Built(program.Name, Stopwatch.GetElapsedTime(started));
        return program.Load(kernel, groupSize);
    }

    public void Dispose()
    {
        foreach (OpenClProgram? program in _built.Values.Concat(_alone)) program?.Dispose();
    }

    // Null where it cannot be built: one kernel that is refused does not take the others with it.
    private OpenClProgram? Joint(KernelProgram program)
    {
        if (_built.TryGetValue(program, out OpenClProgram? built)) return built;
        try
        {
            built = new OpenClProgram(accelerator, register, program);
        }
        catch (Exception e) when (e is not OutOfMemoryException && !DeviceMemory.IsOutOfMemory(e))
        {
            // Each of its kernels is then built alone, and says itself what is wrong with it.
        }

        return _built[program] = built;
    }

    private OpenClProgram Alone(MethodInfo kernel)
    {
        var program = new OpenClProgram(accelerator, register, new KernelProgram(kernel));
        _alone.Add(program);
        return program;
    }
}

/// <summary>A program that a device has built. ILGPU's own way to load a kernel builds a program for each.</summary>
internal sealed class OpenClProgram : IDisposable
{
    private readonly CLAccelerator _accelerator;
    private readonly KernelProgram _program;
    private readonly CLCompiledKernel[] _kernels;
    private readonly List<CLKernel> _loaded = [];
    private nint _built;

    /// <summary>Builds a program, its kernels translated side by side.</summary>
    public OpenClProgram(CLAccelerator accelerator, Action<Context> register, KernelProgram program)
    {
        _accelerator = accelerator;
        _program = program;
        _kernels = new CLCompiledKernel[program.Kernels.Length];
        try
        {
            Parallel.For(0, _kernels.Length, i => _kernels[i] = OpenClSource.Translate(accelerator, program.Kernels[i], register));
        }
        catch (AggregateException e)
        {
            ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
        }

        CLError error = CLKernel.LoadKernel(accelerator, OpenClSource.Name(_kernels, 0), OpenClSource.Join(_kernels), _kernels[0].CVersion, out _built, out nint first, out string? log);
        if (error != CLError.CL_SUCCESS) throw new CLException(string.IsNullOrWhiteSpace(log) ? error.ToString() : log.TrimEnd('\0', '\n'));
        CLException.ThrowIfFailed(CLAPI.CurrentAPI.ReleaseKernel(first));
    }

    /// <summary>Its name.</summary>
    public string Name => _program.Name;

    /// <summary>Loads one of its kernels.</summary>
    public Kernel Load(MethodInfo kernel, int groupSize)
    {
        int index = _program.Kernels.IndexOf(kernel);
        MethodInfo launcher = Launcher(_accelerator, _kernels[index], groupSize);
        CLException.ThrowIfFailed(CLAPI.CurrentAPI.CreateKernel(_built, OpenClSource.Name(_kernels, index), out nint created));
        var loaded = (CLKernel)RuntimeHelpers.GetUninitializedObject(typeof(CLKernel));
        Created(loaded) = created;                          // its program stays 0: it is not the kernel's to release
        Construct(loaded, _accelerator, _kernels[index], launcher);
        _loaded.Add(loaded);
        return loaded;
    }

    public void Dispose()
    {
        foreach (CLKernel kernel in _loaded) kernel.Dispose();
        if (_built != 0) CLException.ThrowIfFailed(CLAPI.CurrentAPI.ReleaseProgram(_built));
        _built = 0;
    }

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "GenerateKernelLauncherMethod")]
    private static extern MethodInfo Launcher(CLAccelerator accelerator, CLCompiledKernel kernel, int groupSize);

    // What the constructor of CLKernel does, but for building a program.
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = ".ctor")]
    private static extern void Construct(Kernel kernel, Accelerator accelerator, CompiledKernel compiled, MethodInfo? launcher);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "kernelPtr")]
    private static extern ref nint Created(CLKernel kernel);
}
