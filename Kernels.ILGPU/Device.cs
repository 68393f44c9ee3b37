using System.Diagnostics;
using System.Linq.Expressions;
using System.Reflection;
using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>An open device with its compiled kernels: one backend has it at a time, the next one finds the kernels compiled.</summary>
/// <param name="name">Its name.</param>
/// <param name="context">ILGPU's context.</param>
/// <param name="accelerator">The device.</param>
/// <param name="withConsent">Only those get it who accept it without generic address space.</param>
/// <param name="inPrimaryContext">It works in the primary context of a CUDA device.</param>
/// <param name="programs">The programs of an OpenCL device, of kernels translated with the functions of <see cref="Devices.Register"/>; tests have others.</param>
internal sealed class Device(string name, Context context, Accelerator accelerator, bool withConsent, bool inPrimaryContext = false, OpenClPrograms? programs = null)
{
    private static readonly List<Accelerator> Abandoned = [];

    private readonly Dictionary<MethodInfo, Delegate> _launchers = [];
    private readonly List<KernelUse> _kernels = [];
    private CuBlasProduct? _cuBlas;
    private string _whyNoCuBlas = "";
    private bool _askedForCuBlas;

    public string Name => name;

    public Accelerator Accelerator => accelerator;

    /// <summary>ILGPU's context, which lives as long as the accelerator.</summary>
    public Context Context => context;

    /// <summary>The programs of an OpenCL device, null for others.</summary>
    public OpenClPrograms? Programs { get; } = programs ?? (accelerator is CLAccelerator opencl ? new OpenClPrograms(opencl, Devices.Register, Devices.IsCpu(opencl.Device) ? IlgpuBackend.Programs.Cpu : IlgpuBackend.Programs.Gpu) : null);

    public DeviceMemory Memory { get; } = new(name, accelerator);

    /// <summary>True where only those get it who accept it without generic address space.</summary>
    public bool WithConsent => withConsent;

    /// <summary>True where it works in the primary context of a CUDA device.</summary>
    public bool InPrimaryContext => inPrimaryContext;

    /// <summary>The kernels compiled so far, in order.</summary>
    public IReadOnlyList<KernelUse> Kernels => _kernels;

    /// <summary>cuBLAS, opened for the first backend that asks, null where the device has none.</summary>
    /// <param name="whyNot">Why not, empty where it has.</param>
    public CuBlasProduct? CuBlas(out string whyNot)
    {
        if (!_askedForCuBlas && accelerator is CudaAccelerator cuda)
        {
            _askedForCuBlas = true;
            _cuBlas = CuBlasProduct.Open(cuda, out _whyNoCuBlas);
            if (_cuBlas is not null) _kernels.Add(_cuBlas.Use);
        }

        whyNot = _whyNoCuBlas;
        return _cuBlas;
    }

    /// <summary>Who has the device now, and is told of failed launches.</summary>
    public IlgpuBackend? Backend { get; set; }

    /// <summary>A kernel's launcher, compiled at its first use.</summary>
    /// <exception cref="KernelCompilationException">It cannot be compiled.</exception>
    public T Load<T>(MethodInfo kernel) where T : Delegate
    {
        if (_launchers.TryGetValue(kernel, out Delegate? known)) return (T)known;
        long started = Stopwatch.GetTimestamp();
        var use = new KernelUse(KernelCompiler.NameOf(kernel));
        T launcher = Guarded(KernelCompiler.Compile<T>(this, kernel, use), use);
        use.Compiled(Stopwatch.GetElapsedTime(started));
        _kernels.Add(use);
        _launchers[kernel] = launcher;
        return launcher;
    }

    /// <summary>Ends it for good: after a fault nobody else may have it.</summary>
    public void Discard()
    {
        if (inPrimaryContext)
        {
            // ILGPU would destroy the context, which others of the process may use: the accelerator stays, unused, and what it holds goes with the context.
            lock (Abandoned) Abandoned.Add(accelerator);
            PrimaryContext.Release((CudaAccelerator)accelerator);
            return;
        }

        foreach (IDisposable? part in (IDisposable?[])[_cuBlas, Programs, accelerator, context])
        {
            try
            {
                part?.Dispose();
            }
            catch (Exception e) when (e is AcceleratorException or CuBlasException)
            {
                // The driver refuses to free what a lost device had; there is nothing more to do.
            }
        }
    }

    // The launcher's type has the kernel's arguments, so what goes around it is put together here, once a kernel; launching allocates nothing.
    private T Guarded<T>(T launch, KernelUse use) where T : Delegate
    {
        ParameterExpression[] arguments = [.. typeof(T).GetMethod("Invoke")!.GetParameters().Select(parameter => Expression.Parameter(parameter.ParameterType))];
        ParameterExpression failure = Expression.Parameter(typeof(AcceleratorException));
        Expression uses = Expression.Constant(use);
        return Expression.Lambda<T>(
            Expression.TryCatch(
                Expression.Block(
                    Expression.Call(uses, Method(use.Before), arguments[0]),
                    Expression.Invoke(Expression.Constant(launch), arguments),
                    Expression.Call(uses, Method(use.After), arguments[0])),
                Expression.Catch(failure, Expression.Throw(Expression.Call(Expression.Constant(this), Method(Failed), failure)))),
            arguments).Compile();
    }

    private static MethodInfo Method(Delegate method) => method.Method;

    private Exception Failed(AcceleratorException e) => Backend?.Failed(e) ?? e;
}
