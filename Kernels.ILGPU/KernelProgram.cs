using System.Collections.Immutable;
using System.Reflection;

namespace Treeline.Kernels.ILGPU;

/// <summary>Kernels that are used together: on OpenCL they are built as one program.</summary>
/// <remarks>A driver may take longer over beginning a program than over what is in it (PoCL 0.3 s); but a kernel that nobody launches costs its part too.</remarks>
internal sealed class KernelProgram
{
    /// <summary>Kernels of one program.</summary>
    /// <param name="name">What they are for.</param>
    /// <param name="kernels">The kernels; their order is that of the program's text.</param>
    public KernelProgram(string name, params Delegate[] kernels) => (Name, Kernels) = (name, [.. kernels.Select(kernel => kernel.Method)]);

    /// <summary>A program of one kernel.</summary>
    public KernelProgram(MethodInfo kernel) => (Name, Kernels) = (KernelCompiler.NameOf(kernel), [kernel]);

    /// <summary>What they are for; of a single kernel, its name.</summary>
    public string Name { get; }

    /// <summary>The kernels.</summary>
    public ImmutableArray<MethodInfo> Kernels { get; }
}

public sealed partial class IlgpuBackend
{
    /// <summary>Which kernels are one program. One that is in none is a program by itself: nothing is wrong with that, its first use takes a little longer.</summary>
    internal static class Programs
    {
        private static readonly KernelProgram[] Shared =
        [
            new("rows",
                EmbeddingKernel<float, Float32Weight>, EmbeddingKernel<ushort, BFloat16Weight>, EmbeddingKernel<ushort, Float16Weight>, RmsNormKernel, LayerNormKernel, RotaryKernel,
                AddKernel, SiluKernel, SiluGateKernel, GeluExactKernel, GeluTanhKernel, SoftmaxKernel, PackFloat32Kernel, PackBFloat16Kernel, PackFloat16Kernel, WidenBFloat16Kernel, WidenFloat16Kernel),
            new("products in place", LinearInPlaceKernel<float, Float32Weight>, LinearInPlaceKernel<ushort, BFloat16Weight>, LinearInPlaceKernel<ushort, Float16Weight>),
            new("softmax attention", SoftmaxStoreKernel, SoftmaxPartKernel, SoftmaxMergeKernel, SoftmaxAppendKernel),
        ];

        /// <summary>The programs of a CPU, where products are computed in patches.</summary>
        public static IReadOnlyList<KernelProgram> Cpu { get; } =
        [
            .. Shared,
            new("grouped attention",
                FlashWalkKernel<Relu2Weight>, FlashPatchesKernel<Relu2Weight>, FlashStorePatchesKernel, FlashClosePatchesKernel, FlashSlideKernel, FlashJoinKernel, FlashAppendKernel, FlashCrossingKernel),
            new("grouped attention, YOSO", FlashWalkKernel<YosoWeight>, FlashPatchesKernel<YosoWeight>),
            new("selection", ArgMaxKernel, TopKKernel, LogProbabilityKernel, AcceptKernel, TypicalRowsKernel, TypicalWalkKernel, CheckPathsKernel, SampleKernel, SampleCutKernel),
        ];

        /// <summary>The programs of GPUs, and of what else is no CPU.</summary>
        public static IReadOnlyList<KernelProgram> Gpu { get; } =
        [
            .. Shared,
            Linear<float, Float32Weight>("products, float32"),
            Linear<ushort, BFloat16Weight>("products, bfloat16"),
            Linear<ushort, Float16Weight>("products, float16"),
            Linear<byte, Int8Weight>("products, 8 bits"),
            Linear<byte, Int4Weight>("products, 4 bits"),
            new("grouped attention",
                FlashMoveKernel, FlashStoreKernel, FlashScoreKernel<Column1, Relu2Weight>, FlashScoreKernel<Column32, Relu2Weight>, FlashShareKernel<Column1>, FlashShareKernel<Column32>,
                FlashNodeKernel, FlashStripKernel, FlashCloseKernel, FlashSlideKernel, FlashJoinKernel),
            new("grouped attention, trees", FlashScoreKernel<Column8, Relu2Weight>, FlashShareKernel<Column8>, FlashCrossingKernel, FlashAppendKernel),
            new("grouped attention, YOSO", FlashScoreKernel<Column1, YosoWeight>, FlashScoreKernel<Column8, YosoWeight>, FlashScoreKernel<Column32, YosoWeight>),
            new("selection", ArgMaxKernel, TopKKernel, LogProbabilityKernel, AcceptKernel, TypicalRowsKernel, TypicalWalkKernel, CheckPathsKernel),
            new("sampling", SampleKernel, SampleCutKernel),                 // apart: float64, which some GPUs lack
        ];

        private static KernelProgram Linear<T, TStored>(string name) where T : unmanaged where TStored : struct, IStoredWeight<T> =>
            new(name, LinearKernel<Column1, T, TStored>, LinearKernel<Column8, T, TStored>, LinearKernel<Column32, T, TStored>);
    }
}
