using System.Reflection;
using global::ILGPU;
using global::ILGPU.Backends.OpenCL;
using global::ILGPU.Backends.PTX;
using global::ILGPU.IR;
using global::ILGPU.IR.Intrinsics;

namespace Treeline.Kernels.ILGPU;

/// <summary>a·b + c rounded once, on every device.</summary>
/// <remarks>
/// Every sum of products in these kernels is a chain of it. Written as <c>a * b + c</c> a compiler may contract it in one kernel and not in another, and a token's bits
/// would depend on which kernel computed it; OpenCL compilers do not contract what ILGPU writes at all, at half the speed. ILGPU itself has no way to ask for it.
/// </remarks>
internal static class Fused
{
    /// <summary>a·b + c.</summary>
    [IntrinsicImplementation]
    public static float MultiplyAdd(float a, float b, float c) => MathF.FusedMultiplyAdd(a, b, c);

    /// <summary>Tells a context, before its first kernel, what the devices call it.</summary>
    public static void Register(Context context)
    {
        MethodInfo method = typeof(Fused).GetMethod(nameof(MultiplyAdd))!;
        IntrinsicImplementationManager intrinsics = context.GetIntrinsicManager();
        intrinsics.RegisterMethod(method, new CLIntrinsic(typeof(Fused), nameof(EmitOpenCL), IntrinsicImplementationMode.GenerateCode));
        intrinsics.RegisterMethod(method, new PTXIntrinsic(typeof(Fused), nameof(EmitPtx), IntrinsicImplementationMode.GenerateCode));
    }

    private static void EmitOpenCL(CLBackend backend, CLCodeGenerator generator, Value value)
    {
        var (a, b, c) = (generator.Load(value[0]), generator.Load(value[1]), generator.Load(value[2]));
        using CLCodeGenerator.StatementEmitter statement = generator.BeginStatement(generator.Allocate(value));
        statement.AppendCommand("fma");
        statement.BeginArguments();
        statement.AppendArgument(a);
        statement.AppendArgument(b);
        statement.AppendArgument(c);
        statement.EndArguments();
    }

    private static void EmitPtx(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var (a, b, c) = (generator.LoadPrimitive(value[0]), generator.LoadPrimitive(value[1]), generator.LoadPrimitive(value[2]));
        var target = generator.AllocateHardware(value);
        using PTXCodeGenerator.CommandEmitter command = generator.BeginCommand("fma.rn.f32");
        command.AppendArgument(target);
        command.AppendArgument(a);
        command.AppendArgument(b);
        command.AppendArgument(c);
    }
}
