using System.Globalization;
using System.Runtime.InteropServices;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>The figures that docs/performance.md keeps, as ratios measured in one run.</summary>
internal static unsafe class QuickTable
{
    private const int Inputs = 2048, Outputs = 16_384, Heads = 8, HeadDim = 128, GroupSize = 64;

    public static void Print()
    {
        using KernelBackend backend = Backends.Open("cpu");
        Console.WriteLine($"{backend.Name}: {backend.Description}");
        Console.WriteLine("ratios, medians of 21 interleaved turns; nothing else should run meanwhile");
        Products(backend);
        Attention(backend);
    }

    private static void Products(KernelBackend backend)
    {
        foreach (WeightForm form in (WeightForm[])[WeightForm.Float32, WeightForm.BFloat16, WeightForm.Int8, WeightForm.Int4])
        {
            using DeviceTensor weight = backend.Allocate(ElementType.Float32, Outputs, Inputs);
            using WeightMatrix packed = backend.Pack(weight, form);
            using DeviceTensor input = backend.Allocate(ElementType.Float32, 64, Inputs), output = backend.Allocate(ElementType.Float32, 64, Outputs);
            long floats = packed.Bytes / sizeof(float);
            float* buffer = Machine.Buffer(floats);
            void Rows(int n) => backend.Linear(input.First(n), packed, null, output.First(n));

            Line($"linear {form}, 1 row: share of read bandwidth", 1 / Clock.Ratio(() => Rows(1), () => Machine.Read(buffer, floats)));
            Line($"linear {form}, 8 rows: time of 1 row", Clock.Ratio(() => Rows(8), () => Rows(1)));
            Line($"linear {form}, 64 rows: time of 1 row", Clock.Ratio(() => Rows(64), () => Rows(1)));
            double work = 2.0 * 64 * Inputs * Outputs, peak = Machine.MultiplyAdd();
            Line($"linear {form}, 64 rows: share of the multiply-add peak", work / peak / Clock.Ratio(() => Rows(64), () => Machine.MultiplyAdd()));
            NativeMemory.AlignedFree(buffer);
        }
    }

    private static void Attention(KernelBackend backend)
    {
        TokenTree one = Trees.Of(1), tree = Trees.Of(63);
        // Both pasts end at the same place of a group: what is compared is the length, not the tail.
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(Heads, Heads, HeadDim, GroupSize), AttentionSpec.Softmax(Heads, Heads, HeadDim)])
        {
            string name = spec.Attention == "flash" ? "augmented" : spec.Attention;
            using AttentionLoad near = new(backend, spec, 1000), far = new(backend, spec, 1000 + 31 * 1024);
            Line($"{name}, one token at 32,744: time at 1,000", Clock.Ratio(() => far.Verify(one), () => near.Verify(one)));
            Line($"{name}, state at 32,744: state at 1,000", (double)far.StateBytes / near.StateBytes);
            Line($"{name}, a tree of 63 at 1,000: time of one token", Clock.Ratio(() => near.Verify(tree), () => near.Verify(one)));
        }
    }

    private static void Line(string what, double ratio) => Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {what,-58} {ratio,8:f2}"));
}
