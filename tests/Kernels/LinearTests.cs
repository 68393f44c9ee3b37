using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

public class LinearTests
{
    // Odd, below and above a panel, a block of channels, a tile of rows; the sizes of a model with odd widths.
    private static readonly (int Rows, int Inputs, int Outputs)[] Sizes =
        [(1, 1, 1), (1, 200, 331), (2, 331, 200), (3, 15, 50), (7, 193, 47), (9, 200, 1003), (17, 64, 144), (33, 400, 97), (70, 200, 200), (300, 20, 49)];

    private static readonly ElementType[] Types = [ElementType.Float32, ElementType.BFloat16, ElementType.Float16];

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants).Where(name => name != "oracle")];

    public static TheoryData<string> Lossless => [.. BackendsUnderTest.Lossless.Where(name => name != "oracle")];

    [Theory, MemberData(nameof(Names))]
    public void Agrees_with_the_oracle(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        int seed = 0;
        foreach ((int rows, int inputs, int outputs) in Sizes)
        {
            foreach (WeightForm form in Enum.GetValues<WeightForm>())
            {
                ElementType type = Types[++seed % 3], weightType = Types[seed / 3 % 3];
                bool transposed = seed % 2 == 0 && form != WeightForm.InPlace;
                int gap = seed % 4;
                var input = Argument.Random(seed, type, gap, rows, inputs);
                var weight = Argument.Random(seed + 1000, weightType, (seed + 1) % 3, transposed ? [inputs, outputs] : [outputs, inputs]);
                Argument? bias = seed % 3 == 0 ? null : Argument.Random(seed + 2000, Types[(seed + 1) % 3], 0, outputs);
                string what = $"[{rows}, {inputs}] {type} · [{outputs}, {inputs}] {weightType} as {form}, transposed {transposed}, gap {gap}";
                Close.To(Linear(oracle, input, weight, form, transposed, bias, 0), Linear(rig, input, weight, form, transposed, bias, gap), Close.Attention, what);
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void A_backend_says_whether_its_products_are_lossless(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        string[] said = [.. Enum.GetValues<WeightForm>().Select(backend.Describe)];
        Assert.Equal(backend.IsLosslessToTheBit, said.All(how => how.Contains(", lossless to the bit", StringComparison.Ordinal)));
        Assert.Contains("unknown form", Assert.Throws<ArgumentOutOfRangeException>(() => backend.Describe((WeightForm)77)).Message, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Lossless))]
    public void A_row_has_the_same_bits_whatever_the_number_of_rows(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (WeightForm form in Enum.GetValues<WeightForm>())
        {
            foreach ((int inputs, int outputs) in new[] { (200, 331), (331, 200), (200, 1003), (20, 60) })
            {
                var all = Argument.Random(7, ElementType.Float32, 0, 70, inputs);
                var weight = Argument.Random(8, ElementType.BFloat16, 0, outputs, inputs);
                var bias = Argument.Random(9, ElementType.Float32, 0, outputs);
                float[] want = Linear(rig, all, weight, form, false, bias, 0);
                using WeightMatrix packed = rig.Backend.Pack(rig.Upload(weight), form);
                DeviceTensor added = rig.Upload(bias);
                for (int rows = 1; rows < 70; rows += rows < 18 ? 1 : 13)
                {
                    int first = 69 - rows;
                    using var part = new OpRig(rig.Backend, owner: false);
                    DeviceTensor output = part.Output(3, rows, outputs);
                    rig.Backend.Linear(part.Upload(all.Rows(first, first + rows)), packed, added, output);
                    Assert.Equal(want[(first * outputs)..((first + rows) * outputs)], part.Read(output));
                }
            }
        }
    }

    [Fact]
    public void Bits_depend_neither_on_threads_nor_on_vectors()
    {
        foreach (WeightForm form in Enum.GetValues<WeightForm>())
        {
            foreach (int rows in new[] { 1, 5, 300 })
            {
                float[][] results =
                [
                    .. BackendsUnderTest.Variants.Select(name =>
                    {
                        using var rig = new OpRig(BackendsUnderTest.Open(name));
                        return Linear(rig, Argument.Random(1, ElementType.Float32, 0, rows, 401), Argument.Random(2, ElementType.Float32, 0, 523, 401), form, false,
                            Argument.Random(3, ElementType.Float32, 0, 523), 0);
                    }),
                ];
                for (int i = 1; i < results.Length; i++) Assert.Equal(results[0], results[i]);
            }
        }
    }

    private static float[] Linear(OpRig rig, Argument input, Argument weight, WeightForm form, bool transposed, Argument? bias, int gap)
    {
        using WeightMatrix packed = rig.Backend.Pack(rig.Upload(weight), form, transposed);
        DeviceTensor output = rig.Output(gap, input.Shape[0], packed.Outputs);
        rig.Backend.Linear(rig.Upload(input), packed, bias is null ? null : rig.Upload(bias), output);
        return rig.Read(output);
    }
}
