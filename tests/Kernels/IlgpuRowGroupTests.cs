using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The ops with a group of threads a row, with as many threads as GPUs have: on an OpenCL device that takes such groups too.</summary>
public class IlgpuRowGroupTests
{
    // Below, at and above the threads of a group and of a half; several columns a thread.
    private static readonly (int Rows, int Columns)[] Sizes = [(1, 1), (3, 17), (2, 129), (4, 255), (3, 256), (5, 257), (2, 1003)];

    private static readonly ElementType[] Types = [ElementType.Float32, ElementType.BFloat16, ElementType.Float16];

    [Fact]
    public void Norms_and_softmax_agree_with_the_oracle() => Compare<float>((rig, logits, _) =>
    {
        int columns = logits.Shape[1];
        DeviceTensor x = rig.Upload(logits), gain = rig.Upload(Argument.Random(1, ElementType.Float32, 0, columns)), bias = rig.Upload(Argument.Random(2, ElementType.Float32, 0, columns));
        DeviceTensor rms = rig.Output(1, logits.Shape), layer = rig.Output(2, logits.Shape), softmax = rig.Output(3, logits.Shape);
        rig.Backend.RmsNorm(x, gain, 1e-5f, rms);
        rig.Backend.LayerNorm(x, gain, bias, 1e-5f, layer);
        rig.Backend.Softmax(x, softmax);
        return [rig.Read(rms), rig.Read(layer), rig.Read(softmax)];
    }, (want, got, what) => Close.To(want, got, Close.Attention, what));

    [Fact]
    public void Log_probabilities_agree_with_the_oracle() => Compare<float>((rig, logits, _) =>
    {
        DeviceTensor output = rig.Output(0, logits.Shape[0]);
        rig.Backend.LogProbability(rig.Upload(logits), rig.Upload([.. Enumerable.Range(0, logits.Shape[0]).Select(r => r * 13 % logits.Shape[1])]), output);
        return [rig.Read(output)];
    }, (want, got, what) => Close.To(want, got, 1e-6, what));

    [Fact]
    public void ArgMax_and_TopK_are_the_oracles() => Compare<int>((rig, logits, _) =>
    {
        // Steps of a quarter: many equal numbers; and NaN, which is seen.
        float[] numbers = Array.ConvertAll(logits.Numbers, x => MathF.Round(4 * x) / 4);
        if (logits.Shape[0] > 2) numbers[^1] = float.NaN;
        (int rows, int k) = (logits.Shape[0], Math.Min(9, logits.Shape[1]));
        DeviceTensor x = rig.Upload(logits with { Numbers = numbers }), tokens = rig.IntegerOutput(rows), values = rig.Output(1, rows, k), indices = rig.IntegerOutput(rows, k);
        rig.Backend.ArgMax(x, tokens);
        rig.Backend.TopK(x, values, indices);
        return [rig.ReadIntegers(tokens), rig.ReadIntegers(indices), Array.ConvertAll(rig.Read(values), BitConverter.SingleToInt32Bits)];
    }, Same);

    [Fact]
    public void Draws_are_the_oracles() => Compare<int>((rig, logits, random) =>
    {
        SamplingRow[] rows = [.. Enumerable.Range(0, logits.Shape[0]).Select(i => new SamplingRow((ulong)random.NextInt64(), i, random.Pick(0, 0.3f, 1, 2.5f),
            TopK: random.Pick(0, 1, 5, 40, 5000), TopP: random.Pick(1, 0.9f, 0.5f, 0.01f), MinP: random.Pick(0, 0, 0.05f, 0.5f)))];
        DeviceTensor tokens = rig.IntegerOutput(rows.Length);
        rig.Backend.Sample(rig.Upload(logits), rows, tokens);
        return [rig.ReadIntegers(tokens)];
    }, Same, times: 5);

    [Fact]
    public void Typical_acceptance_is_the_oracles() => Compare<int>((rig, logits, random) =>
    {
        (int nodes, int vocabulary) = (logits.Shape[0], logits.Shape[1]);
        var step = new Step();
        step.Verify(0, random.Tree(nodes));
        DeviceTensor accepted = rig.IntegerOutput(1, step.MaxDepth);
        rig.Backend.AcceptTypical(step, rig.Upload([.. Enumerable.Range(0, nodes).Select(_ => random.Next(vocabulary))]), rig.Upload(logits), random.Pick(0.5f, 1), 1e-3f, 0.3f, accepted);
        return [rig.ReadIntegers(accepted)];
    }, Same, times: 5);

    private static void Same<T>(T[] want, T[] got, string what) => Assert.True(want.AsSpan().SequenceEqual(got), what);

    private static void Compare<T>(Func<OpRig, Argument, Random, T[][]> run, Action<T[], T[], string> check, int times = 1)
    {
        IlgpuBackend backend = IlgpuDevices.Open("opencl:0" + IlgpuDevices.Gpu);
        using var rig = new OpRig(backend);
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        if (backend.RowThreads < RowGroup.Most) Assert.Skip($"opencl:0 takes groups of {backend.Accelerator.MaxNumThreadsPerGroup}");
        for (int seed = 0; seed < Sizes.Length * times; seed++)
        {
            (int rows, int columns) = Sizes[seed % Sizes.Length];
            Argument logits = Argument.Random(seed, Types[seed % Types.Length], seed % 4, rows, columns);
            logits = logits with { Numbers = Array.ConvertAll(logits.Numbers, x => 4 * x) };
            T[][] want = run(oracle, logits, new Random(seed)), got = run(rig, logits, new Random(seed));
            for (int i = 0; i < want.Length; i++) check(want[i], got[i], $"[{rows}, {columns}] {logits.Type}, result {i}, seed {seed}");
        }
    }
}
