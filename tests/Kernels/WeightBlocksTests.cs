using System.Runtime.Intrinsics;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The rule of the 8-bit and 4-bit forms, and that backends keep to it.</summary>
public class WeightBlocksTests
{
    public static TheoryData<WeightForm> Forms => [WeightForm.Int8, WeightForm.Int4];

    public static TheoryData<string, WeightForm> Backends => new(from name in BackendsUnderTest.Names from form in new[] { WeightForm.Int8, WeightForm.Int4 } select (name, form));

    [Theory, MemberData(nameof(Forms))]
    public void A_weight_is_off_by_no_more_than_is_said(WeightForm form)
    {
        var random = new Random(1);
        for (int round = 0; round < 2000; round++)
        {
            float[] weights = random.Floats(random.Next(1, WeightBlocks.Size + 1), Math.Pow(10, random.Next(-30, 30)));
            (float scale, sbyte[] integers) = Quantize(form, weights);
            float extreme = weights.MaxBy(MathF.Abs);
            double largest = Math.Abs((double)extreme), most = 0;
            for (int i = 0; i < weights.Length; i++)
            {
                Assert.InRange(integers[i], form == WeightForm.Int8 ? -127 : -8, form == WeightForm.Int8 ? 127 : 7);
                double off = Math.Abs((double)scale * integers[i] - weights[i]) / largest;
                bool isOpposite = weights[i] / extreme < -7.5f / 8;
                Assert.True(off <= (form == WeightForm.Int8 ? 1 / 254.0 : isOpposite ? 1 / 8.0 : 1 / 16.0) + 1e-6, $"{weights[i]} of {largest} is off by {off} of it");
                most = Math.Max(most, off);
            }

            if (form == WeightForm.Int4) Assert.Equal(extreme, scale * integers[Array.IndexOf(weights, extreme)]);
            if (weights.Length == WeightBlocks.Size) Assert.True(most > 1e-4, "nothing was rounded");
        }
    }

    // The first of two largest decides the sign of a 4-bit scale.
    [Fact]
    public void Integers_are_what_the_rule_says()
    {
        Check(WeightForm.Int8, [254, -127, 1, 3, 0, -254], 2, [127, -64, 0, 2, 0, -127]);
        Check(WeightForm.Int4, [-16, 16, 1, 3, 0, 5, -13, 15], 2, [-8, 7, 0, 2, 0, 2, -6, 7]);
        Check(WeightForm.Int4, [16, -16, 1, 3, 0, 5, -13, 15], -2, [-8, 7, 0, -2, 0, -2, 6, -8]);
        Check(WeightForm.Int8, [0.5f], 0.5f / 127, [127]);
        Check(WeightForm.Int4, [0.5f], -0.0625f, [-8]);
        Check(WeightForm.Int8, [], 0, []);

        static void Check(WeightForm form, float[] weights, float scale, sbyte[] integers)
        {
            (float got, sbyte[] gotIntegers) = Quantize(form, weights);
            Assert.Equal(scale, got);
            Assert.Equal(integers, gotIntegers);
        }
    }

    [Theory, MemberData(nameof(Forms))]
    public void A_negated_block_is_the_negated_numbers(WeightForm form)
    {
        float[] weights = new Random(2).Floats(WeightBlocks.Size);
        (float scale, sbyte[] integers) = Quantize(form, weights);
        (float negated, sbyte[] others) = Quantize(form, Array.ConvertAll(weights, x => -x));
        for (int i = 0; i < weights.Length; i++) Assert.Equal(-(scale * integers[i]), negated * others[i]);
    }

    [Theory, MemberData(nameof(Forms))]
    public void Blocks_at_the_ends_of_float32_stay_finite(WeightForm form)
    {
        foreach (float[] weights in new float[][] { [0, -0f, 0], [float.Epsilon, -float.Epsilon], [1e-38f, -1e-38f] })
        {
            (float scale, sbyte[] integers) = Quantize(form, weights);
            Assert.Equal(0, scale);
            Assert.Equal(new sbyte[weights.Length], integers);
        }

        foreach (float largest in new[] { float.MaxValue, float.MinValue, 2e-36f })
        {
            (float scale, sbyte[] integers) = Quantize(form, [largest, -largest, largest / 2]);
            Assert.All(integers, integer => Assert.True(float.IsFinite(scale * integer)));
            Assert.Equal(largest, scale * integers[0], MathF.Abs(largest) * 1e-6f);
        }
    }

    [Theory, MemberData(nameof(Forms))]
    public void What_is_no_block_is_refused(WeightForm form)
    {
        foreach (float bad in new[] { float.NaN, float.PositiveInfinity, float.NegativeInfinity })
            Refused($"weight: expected finite numbers to pack as {form}, got {bad} at [5, 66]", () => WeightBlocks.Quantize(form, [1, 2, bad], new sbyte[3], output: 5, firstInput: 64));
        Refused("weights: expected at most 32, got 33", () => WeightBlocks.Quantize(form, new float[33], new sbyte[33]));
        Refused("integers: expected 3, as many as weights, got 2", () => WeightBlocks.Quantize(form, new float[3], new sbyte[2]));
        Refused("form: expected Int8 or Int4, got BFloat16", () => WeightBlocks.Quantize(WeightForm.BFloat16, [1], new sbyte[1]));
        Refused("form: expected Int8 or Int4, got InPlace", () => WeightBlocks.Bytes(WeightForm.InPlace, 1));
    }

    [Theory, MemberData(nameof(Backends))]
    public void A_weight_that_is_not_finite_is_refused_by_its_place_and_nothing_stays(string name, WeightForm form)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (bool transposed in new[] { false, true })
        {
            var weight = Argument.Random(1, ElementType.Float32, 0, 40, 45);
            weight.Numbers[35 * 45 + 37] = float.NaN;
            Refused($"weight: expected finite numbers to pack as {form}, got NaN at [{(transposed ? "37, 35" : "35, 37")}]", () => rig.Backend.Pack(rig.Upload(weight), form, transposed));
        }

        using WeightMatrix after = rig.Backend.Pack(rig.Upload(Argument.Random(1, ElementType.Float32, 0, 3, 5)), form);
        Assert.Equal((form, 3, 5), (after.Form, after.Outputs, after.Inputs));
    }

    // A unit vector reads one weight: what a backend stores is the rule's integers and scales, to the bit, and an output's last block is one of its own.
    [Theory, MemberData(nameof(Backends))]
    public void A_backend_stores_what_the_rule_says(string name, WeightForm form)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach ((int outputs, int inputs) in new[] { (3, 1), (50, 31), (2, 32), (7, 33), (1, 75) })
        {
            foreach (bool transposed in new[] { false, true })
            {
                float[] numbers = new Random(inputs).Floats(outputs * inputs);
                var weight = new Argument(transposed ? [inputs, outputs] : [outputs, inputs],
                    transposed ? [.. Enumerable.Range(0, outputs * inputs).Select(i => numbers[i % outputs * inputs + i / outputs])] : numbers, ElementType.Float32, Gap: 3);
                var identity = new float[inputs * inputs];
                for (int i = 0; i < inputs; i++) identity[i * inputs + i] = 1;
                using WeightMatrix packed = rig.Backend.Pack(rig.Upload(weight), form, transposed);
                DeviceTensor output = rig.Output(0, inputs, outputs);
                rig.Backend.Linear(rig.Upload(new Argument([inputs, inputs], identity)), packed, null, output);
                float[] got = rig.Read(output);
                for (int o = 0; o < outputs; o++)
                {
                    for (int first = 0; first < inputs; first += WeightBlocks.Size)
                    {
                        (float scale, sbyte[] integers) = Quantize(form, numbers[(o * inputs + first)..(o * inputs + Math.Min(inputs, first + WeightBlocks.Size))]);
                        for (int i = 0; i < integers.Length; i++) Assert.Equal(scale * integers[i], got[(first + i) * outputs + o]);
                    }
                }
            }
        }
    }

    [Theory, MemberData(nameof(Forms))]
    public void Bytes_are_counted(WeightForm form)
    {
        Assert.Equal(form == WeightForm.Int8 ? 36 : 20, WeightBlocks.Bytes(form, 32));
        Assert.Equal(form == WeightForm.Int8 ? 41 : 25, WeightBlocks.Bytes(form, 33));
        Assert.Equal(5, WeightBlocks.Bytes(form, 1));
        Assert.Equal(67108864, WeightBlocks.Count(int.MaxValue));
        foreach (string name in BackendsUnderTest.Names)
        {
            using var rig = new OpRig(BackendsUnderTest.Open(name));
            using WeightMatrix packed = rig.Backend.Pack(rig.Upload(Argument.Random(1, ElementType.Float32, 0, 960, 256)), form);
            Assert.Equal(960 * WeightBlocks.Bytes(form, 256), packed.Bytes);
        }
    }

    // Widths that this machine has no registers for are computed all the same, slowly.
    [Fact]
    public void Vectors_of_every_width_widen_integers()
    {
        Check<Simd512, Vector512<float>>();
        Check<Simd256, Vector256<float>>();
        Check<Simd128, Vector128<float>>();
        Check<Simd1, float>();

        static unsafe void Check<S, V>() where S : struct, ISimd<V> where V : unmanaged
        {
            sbyte[] bytes = [.. Enumerable.Range(-128, 256).Select(i => (sbyte)i)];
            float[] whole = new float[256], lower = new float[256], upper = new float[256];
            fixed (sbyte* from = bytes)
            fixed (float* toWhole = whole, toLower = lower, toUpper = upper)
            {
                for (int i = 0; i < bytes.Length; i += S.Width)
                {
                    S.Store(toWhole + i, S.LoadInt8(from + i));
                    S.Store(toLower + i, S.LoadInt4Lower(from + i));
                    S.Store(toUpper + i, S.LoadInt4Upper(from + i));
                }
            }

            for (int i = 0; i < bytes.Length; i++)
            {
                int bits = bytes[i] & 255, low = bits % 16, high = bits / 16;
                Assert.Equal((bytes[i], low < 8 ? low : low - 16, high < 8 ? high : high - 16), (whole[i], lower[i], upper[i]));
            }
        }
    }

    private static (float Scale, sbyte[] Integers) Quantize(WeightForm form, float[] weights)
    {
        var integers = new sbyte[weights.Length];
        return (WeightBlocks.Quantize(form, weights, integers), integers);
    }

    private static void Refused(string message, Func<object> act) =>
        Assert.StartsWith(message, Assert.ThrowsAny<ArgumentException>(act).Message, StringComparison.Ordinal);
}
