using System.Reflection;
using System.Reflection.Emit;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.Runtime.Cuda;
using Treeline.Kernels.ILGPU;

namespace Treeline.GpuCheck;

/// <summary>The kernels of the ILGPU backend as PTX, compiled without a device.</summary>
internal sealed class PtxKernels : IDisposable
{
    // The newest that the assembler of CUDA 11.8 takes; what these kernels need is older.
    private static readonly CudaInstructionSet InstructionSet = CudaInstructionSet.ISA_78;

    private readonly Context _context = Devices.CreateWithoutDevice();

    /// <summary>The architectures that are looked at.</summary>
    public static IReadOnlyList<CudaArchitecture> Architectures { get; } = [CudaArchitecture.SM_70, CudaArchitecture.SM_80, CudaArchitecture.SM_90];

    /// <summary>Every kernel that the backend can launch, generic ones in every form: what its code takes the address of. So none is forgotten.</summary>
    public static IReadOnlyList<MethodInfo> Launched { get; } =
        [.. Reached().SelectMany(Taken).Distinct().OrderBy(Name, StringComparer.Ordinal)];

    /// <summary>Those that CUDA runs: not what computes in patches, for which it has no functions.</summary>
    public static IReadOnlyList<MethodInfo> All { get; } = [.. Launched.Where(kernel => !UsesPatches(kernel, []))];

    /// <summary>The kernels that are declared, as they are declared.</summary>
    public static IEnumerable<MethodInfo> Declared { get; } = [.. typeof(IlgpuBackend).GetMethods(Everything | BindingFlags.Static).Where(IsKernel)];

    private const BindingFlags Everything = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    /// <summary>A kernel's name with its type arguments, such as <c>LinearTile&lt;Single, Float32Weight&gt;</c>.</summary>
    public static string Name(MethodInfo kernel) =>
        kernel.Name[..^"Kernel".Length] + (kernel.IsGenericMethod ? $"<{string.Join(", ", kernel.GetGenericArguments().Select(type => type.Name))}>" : "");

    /// <summary>A kernel's PTX.</summary>
    /// <param name="kernel">One of <see cref="All"/>.</param>
    /// <param name="architecture">The architecture that it is meant for.</param>
    public string Compile(MethodInfo kernel, CudaArchitecture architecture)
    {
        using var backend = new PTXBackend(_context, new CudaCapabilityContext(architecture), architecture, InstructionSet, null);
        return ((PTXCompiledKernel)backend.Compile(KernelCompiler.Entry(kernel), default)).PTXAssembly;
    }

    public void Dispose() => _context.Dispose();

    private static bool IsKernel(MethodBase method) => method.IsStatic && method.Name.EndsWith("Kernel", StringComparison.Ordinal) && method.DeclaringType == typeof(IlgpuBackend);

    private static IEnumerable<MethodBase> Bodies(Type type) =>
        type.GetMethods(Everything | BindingFlags.Static | BindingFlags.Instance).Concat<MethodBase>(type.GetConstructors(Everything | BindingFlags.Static | BindingFlags.Instance));

    /// <summary>All code of the backend but the list of programs, which launches nothing; generic methods once for each choice of types that they are called with.</summary>
    private static List<MethodBase> Reached()
    {
        List<MethodBase> reached = [.. typeof(IlgpuBackend).Assembly.GetTypes().Where(type => type != typeof(IlgpuBackend.Programs)).SelectMany(Bodies).Where(body => !body.IsGenericMethodDefinition)];
        var known = reached.ToHashSet();
        for (int i = 0; i < reached.Count; i++)
            reached.AddRange(Operands(reached[i], OpCodes.Call).Where(called => called.IsGenericMethod && !called.ContainsGenericParameters && called.Module == typeof(IlgpuBackend).Module && known.Add(called)));
        return reached;
    }

    private static bool UsesPatches(MethodInfo method, HashSet<MethodInfo> known) => method.DeclaringType == typeof(Patch)
        || Called(method).Any(called => called.Module == typeof(IlgpuBackend).Module && known.Add(called) && UsesPatches(called, known));

    // What its code calls, and what the types have that it is made for.
    private static IEnumerable<MethodInfo> Called(MethodInfo method) =>
        Operands(method, OpCodes.Call).Concat(method.IsGenericMethod ? method.GetGenericArguments().SelectMany(type => type.GetMethods(Everything | BindingFlags.Static)) : []);

    private static IEnumerable<MethodInfo> Taken(MethodBase body)
    {
        foreach (MethodInfo method in Operands(body, OpCodes.Ldftn).Where(IsKernel))
        {
            if (method.ContainsGenericParameters) throw new InvalidOperationException($"{body.DeclaringType}.{body.Name} takes {method} with types of its own: which they are cannot be read from the code");
            yield return method;
        }
    }

    // An instruction of one or two bytes and a token. Bytes that look like it and are not may add a method, never hide one.
    private static IEnumerable<MethodInfo> Operands(MethodBase body, OpCode instruction)
    {
        byte[] code = body.GetMethodBody()?.GetILAsByteArray() ?? [];
        byte[] wanted = instruction.Size == 1 ? [(byte)instruction.Value] : [(byte)(instruction.Value >> 8), (byte)instruction.Value];
        for (int i = 0; i + wanted.Length + sizeof(int) <= code.Length; i++)
            if (code.AsSpan(i).StartsWith(wanted) && Resolve(body, BitConverter.ToInt32(code, i + wanted.Length)) is { } method) yield return method;
    }

    private static MethodInfo? Resolve(MethodBase body, int token)
    {
        try
        {
            return body.Module.ResolveMethod(token, body.DeclaringType!.IsGenericType ? body.DeclaringType.GetGenericArguments() : null, body.IsGenericMethod ? body.GetGenericArguments() : null) as MethodInfo;
        }
        catch (Exception e) when (e is ArgumentException or BadImageFormatException)
        {
            return null;
        }
    }
}
