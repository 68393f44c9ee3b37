using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

public class RotaryTests
{
    private static readonly RotarySpec[] Specs =
    [
        new() { RotaryDim = 2 },
        new() { RotaryDim = 20 },
        new() { RotaryDim = 64, Base = 500_000, Scaling = RotaryScaling.Linear, Factor = 4 },
        new() { RotaryDim = 66, Scaling = RotaryScaling.Dynamic, Factor = 2, OriginalMaxPositions = 100 },
        new() { RotaryDim = 128, Base = 500_000, Scaling = RotaryScaling.Llama3, Factor = 8, OriginalMaxPositions = 8192 },
    ];

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants).Where(name => name != "oracle")];

    [Theory, MemberData(nameof(Names))]
    public void Angles_agree_with_the_oracle(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        int[] positions = [0, 1, 99, 100, 101, 5, 8191, 65_537, 1_000_003];
        foreach (RotarySpec spec in Specs)
        {
            (float[] wantCosines, float[] wantSines) = Angles(oracle, spec, positions, 0);
            (float[] cosines, float[] sines) = Angles(rig, spec, positions, 3);
            Close.To(wantCosines, cosines, 1e-6, $"cosines, {spec}");
            Close.To(wantSines, sines, 1e-6, $"sines, {spec}");
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Turned_vectors_agree_with_the_oracle(string name)
    {
        using var oracle = new OpRig(BackendsUnderTest.Open("oracle"));
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach ((int rows, int heads, int headDim, int pairs) in new[] { (1, 1, 2, 1), (3, 2, 20, 10), (70, 5, 67, 33), (9, 3, 64, 16), (2, 4, 128, 64) })
        {
            foreach (RotaryPairs which in Enum.GetValues<RotaryPairs>())
            {
                var vectors = Argument.Random(rows, ElementType.Float32, 2, rows, heads, headDim);
                Close.To(Turn(oracle, vectors, pairs, which), Turn(rig, vectors, pairs, which), 1e-6, $"{rows} rows, {heads} heads of {headDim}, {pairs} pairs, {which}");
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void A_row_has_the_same_bits_by_itself(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (RotaryPairs which in Enum.GetValues<RotaryPairs>())
        {
            var all = Argument.Random(5, ElementType.Float32, 0, 70, 3, 41);
            float[] want = Turn(rig, all, 20, which);
            for (int row = 0; row < 70; row += 23)
                Assert.Equal(want[(row * 123)..((row + 1) * 123)], Turn(rig, all.Rows(row, row + 1), 20, which, firstAngle: row));
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Channels_without_an_angle_stay(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        foreach (RotaryPairs which in Enum.GetValues<RotaryPairs>())
        {
            var vectors = Argument.Random(1, ElementType.Float32, 0, 2, 3, 50);
            float[] turned = Turn(rig, vectors, 7, which);
            for (int i = 0; i < turned.Length; i++)
                Assert.Equal(i % 50 >= 14, turned[i] == vectors.Numbers[i]);
        }
    }

    private static (float[] Cosines, float[] Sines) Angles(OpRig rig, RotarySpec spec, int[] positions, int gap)
    {
        DeviceTensor cosines = rig.Output(gap, positions.Length, spec.RotaryDim / 2), sines = rig.Output(gap, positions.Length, spec.RotaryDim / 2);
        rig.Backend.RotaryAngles(spec, rig.Upload(positions), cosines, sines);
        return (rig.Read(cosines), rig.Read(sines));
    }

    private static float[] Turn(OpRig rig, Argument vectors, int pairs, RotaryPairs which, int firstAngle = 0)
    {
        var angles = Argument.Random(9, ElementType.Float32, 0, firstAngle + vectors.Shape[0], pairs).Rows(firstAngle, firstAngle + vectors.Shape[0]);
        DeviceTensor turned = rig.Upload(vectors);
        rig.Backend.Rotary(turned, rig.Upload(angles with { Numbers = Array.ConvertAll(angles.Numbers, MathF.Cos) }),
            rig.Upload(angles with { Numbers = Array.ConvertAll(angles.Numbers, MathF.Sin), Gap = 1 }), which);
        return rig.Read(turned);
    }
}
