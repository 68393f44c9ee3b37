using System.Reflection;
using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

/// <summary>An open device with its compiled kernels: one backend has it at a time, the next one finds the kernels compiled.</summary>
internal sealed class Device(string name, Context context, Accelerator accelerator)
{
    private readonly Dictionary<MethodInfo, Delegate> _kernels = [];

    public string Name => name;

    public Accelerator Accelerator => accelerator;

    /// <summary>ILGPU's context, which lives as long as the accelerator.</summary>
    public Context Context => context;

    /// <summary>A kernel's launcher, compiled at its first use.</summary>
    public T Load<T>(MethodInfo kernel) where T : Delegate
    {
        if (_kernels.TryGetValue(kernel, out Delegate? launcher)) return (T)launcher;
        T compiled = kernel.GetParameters()[0].ParameterType == typeof(Index1D) ? accelerator.LoadAutoGroupedKernel<T>(kernel) : accelerator.LoadKernel<T>(kernel);
        _kernels[kernel] = compiled;
        return compiled;
    }
}
