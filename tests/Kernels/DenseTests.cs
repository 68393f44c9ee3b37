using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The ops that treat each row by itself: norms, activations, sums, softmax.</summary>
public class DenseTests
{
    private const float Epsilon = 1e-5f;

    private static readonly (int Rows, int Channels)[] Sizes = [(1, 1), (2, 7), (5, 16), (3, 17), (7, 200), (2, 331), (1, 1003), (70, 33), (40, 1024)];

    // One line an op: x and y are [n, channels], the gain and the bias [channels].
    private static readonly Dictionary<string, Action<KernelBackend, DeviceTensor, DeviceTensor, DeviceTensor, DeviceTensor, DeviceTensor>> Ops = new()
    {
        ["Add"] = (backend, x, y, _, _, output) => backend.Add(x, y, output),
        ["Silu"] = (backend, x, _, _, _, output) => backend.Silu(x, output),
        ["SiluGate"] = (backend, x, y, _, _, output) => backend.SiluGate(x, y, output),
        ["Gelu exact"] = (backend, x, _, _, _, output) => backend.Gelu(x, GeluForm.Exact, output),
        ["Gelu tanh"] = (backend, x, _, _, _, output) => backend.Gelu(x, GeluForm.Tanh, output),
        ["Softmax"] = (backend, x, _, _, _, output) => backend.Softmax(x, output),
        ["RmsNorm"] = (backend, x, _, gain, _, output) => backend.RmsNorm(x, gain, Epsilon, output),
        ["LayerNorm"] = (backend, x, _, gain, bias, output) => backend.LayerNorm(x, gain, bias, Epsilon, output),
    };

    public static TheoryData<string, string> Cases => Cross(BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants));

    public static TheoryData<string, string> Lossless => Cross(BackendsUnderTest.Lossless);

    [Theory, MemberData(nameof(Cases))]
    public void Agrees_with_the_oracle(string name, string op)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        int seed = 0;
        foreach ((int rows, int channels) in Sizes)
        {
            foreach (ElementType type in new[] { ElementType.Float32, ElementType.BFloat16, ElementType.Float16 })
            {
                seed++;
                Operands operands = new(seed, rows, channels, type, seed % 3);
                Close.To(Run(oracle, op, operands, 0), Run(rig, op, operands, seed % 4), Close.Attention, $"[{rows}, {channels}] {type}, seed {seed}");
            }
        }
    }

    [Theory, MemberData(nameof(Lossless))]
    public void A_row_has_the_same_bits_by_itself(string name, string op)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (int channels in new[] { 20, 200, 331 })
        {
            var operands = new Operands(channels, 70, channels, ElementType.Float32, 0);
            float[] want = Run(rig, op, operands, 0);
            foreach ((int first, int end) in new[] { (0, 1), (69, 70), (33, 34), (5, 23), (30, 70) })
            {
                Operands part = operands with { X = operands.X.Rows(first, end), Y = operands.Y.Rows(first, end) };
                Assert.Equal(want[(first * channels)..(end * channels)], Run(rig, op, part, gap: 5));
            }
        }
    }

    [Theory, MemberData(nameof(Cases))]
    public void The_output_may_be_the_input(string name, string op)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        var operands = new Operands(4, 9, 77, ElementType.Float32, 0);
        float[] want = Run(rig, op, operands, 0);
        DeviceTensor x = rig.Upload(operands.X);
        Ops[op](rig.Backend, x, rig.Upload(operands.Y), rig.Upload(operands.Gain), rig.Upload(operands.Bias), x);
        Assert.Equal(want, rig.Read(x));
    }

    [Theory, MemberData(nameof(Cases))]
    public void No_rows_and_no_channels_are_nothing_to_do(string name, string op)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach ((int rows, int channels) in new[] { (0, 5), (3, 0) })
        {
            DeviceTensor empty = rig.Output(0, rows, channels), vector = rig.Output(0, channels);
            Ops[op](rig.Backend, empty, empty, vector, vector, empty);
            Assert.Empty(rig.Read(empty));
        }
    }

    [Fact]
    public void Bits_do_not_depend_on_the_number_of_threads()
    {
        foreach (string op in Ops.Keys)
        {
            var operands = new Operands(1, 200, 333, ElementType.BFloat16, 0);
            using var one = new OpRig(BackendsUnderTest.Open("cpu/1 thread"));
            using var two = new OpRig(BackendsUnderTest.Open("cpu"));
            using var three = new OpRig(BackendsUnderTest.Open("cpu/3 threads"));
            float[] want = Run(one, op, operands, 0);
            Assert.Equal(want, Run(two, op, operands, 0));
            Assert.Equal(want, Run(three, op, operands, 0));
        }
    }

    [Theory]
    [InlineData("Silu")]
    [InlineData("SiluGate")]
    [InlineData("Gelu exact")]
    [InlineData("Gelu tanh")]
    public void A_function_gives_the_same_bits_at_every_place_of_a_row(string op)
    {
        foreach (string name in BackendsUnderTest.Lossless)
        {
            using var rig = new OpRig(BackendsUnderTest.Open(name));
            foreach (float x in new[] { -3.7f, 0.31f, 1e-4f, 11 })
            {
                var same = new Argument([1, 53], Enumerable.Repeat(x, 53).ToArray());
                float[] got = Run(rig, op, new Operands(1, 1, 53, ElementType.Float32, 0) with { X = same, Y = same }, 0);
                Assert.All(got, y => Assert.Equal(got[0], y));
            }
        }
    }

    [Fact]
    public void Gelu_is_right_far_out_and_near_zero()
    {
        float[] x = [-100, -13, -9, -6, -5, -4, -2, -1e-3f, -1e-20f, 0, 1e-20f, 1e-3f, 1, 4, 13, 100];
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        foreach (string name in BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants))
        {
            using var rig = new OpRig(BackendsUnderTest.Open(name));
            foreach (GeluForm form in Enum.GetValues<GeluForm>())
            {
                float[] want = Gelu(oracle, x, form), got = Gelu(rig, x, form);
                for (int i = 0; i < x.Length; i++)
                    Assert.True(Math.Abs(got[i] - want[i]) <= 1e-6 * Math.Abs(want[i]) + 2e-7, $"{name}, {form}, {x[i]}: want {want[i]:r}, got {got[i]:r}");
            }
        }
    }

    [Fact]
    public void LayerNorm_is_right_where_the_mean_is_large()
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        foreach (string name in BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants))
        {
            using var rig = new OpRig(BackendsUnderTest.Open(name));
            var operands = new Operands(3, 4, 1000, ElementType.Float32, 0);
            operands = operands with { X = operands.X with { Numbers = Array.ConvertAll(operands.X.Numbers, x => x + 10_000) } };
            Close.To(Run(oracle, "LayerNorm", operands, 0), Run(rig, "LayerNorm", operands, 0), Close.Attention, name);
        }
    }

    [Fact]
    public void Vectors_of_channels_may_be_columns()
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        foreach (string name in BackendsUnderTest.Names)
        {
            using var rig = new OpRig(BackendsUnderTest.Open(name));
            float[][] results = [.. new[] { oracle, rig }.Select(on =>
            {
                DeviceTensor columns = on.Upload(Argument.Random(1, ElementType.BFloat16, 0, 45, 2));
                DeviceTensor gain = columns.Slice(1, 0, 1).View(45), bias = columns.Slice(1, 1, 1).View(45), output = on.Output(0, 3, 45);
                on.Backend.LayerNorm(on.Upload(Argument.Random(2, ElementType.Float32, 0, 3, 45)), gain, bias, Epsilon, output);
                return on.Read(output);
            })];
            Close.To(results[0], results[1], Close.Attention, name);
        }
    }

    private static TheoryData<string, string> Cross(IEnumerable<string> names) =>
        new(from name in names.Where(name => name != "oracle") from op in Ops.Keys select (name, op));

    private static float[] Run(OpRig rig, string op, Operands operands, int gap)
    {
        DeviceTensor output = rig.Output(gap, operands.X.Shape);
        Ops[op](rig.Backend, rig.Upload(operands.X), rig.Upload(operands.Y), rig.Upload(operands.Gain), rig.Upload(operands.Bias), output);
        return rig.Read(output);
    }

    private static float[] Gelu(OpRig rig, float[] x, GeluForm form)
    {
        DeviceTensor output = rig.Output(0, 1, x.Length);
        rig.Backend.Gelu(rig.Upload(new Argument([1, x.Length], x)), form, output);
        return rig.Read(output);
    }

    private sealed record Operands(Argument X, Argument Y, Argument Gain, Argument Bias)
    {
        public Operands(int seed, int rows, int channels, ElementType type, int gap)
            : this(Argument.Random(seed, type, gap, rows, channels), Argument.Random(seed + 100, type, gap, rows, channels),
                Argument.Random(seed + 200, type, 0, channels), Argument.Random(seed + 300, type, 0, channels))
        { }
    }
}
