using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

public class EmbeddingTests
{
    public static TheoryData<string> Names => [.. BackendsUnderTest.Names.Concat(BackendsUnderTest.Variants)];

    [Theory, MemberData(nameof(Names))]
    public void Rows_are_copied_exactly(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        int[] ids = [6, 0, 3, 3, 6, 1];
        foreach (ElementType type in new[] { ElementType.Float32, ElementType.BFloat16, ElementType.Float16 })
        {
            foreach (int channels in new[] { 1, 20, 331 })
            {
                DeviceTensor table = rig.Upload(Argument.Random(channels, type, 2, 7, channels)), output = rig.Output(1, ids.Length, channels);
                rig.Backend.Embedding(table, rig.Upload(ids), output);
                float[] rows = ReadWidened(rig.Backend, table);
                Assert.Equal(ids.SelectMany(id => rows[(id * channels)..((id + 1) * channels)]), rig.Read(output));
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void An_id_outside_the_table_is_refused(string name)
    {
        using var rig = new OpRig(BackendsUnderTest.Open(name));
        DeviceTensor table = rig.Upload(Argument.Random(1, ElementType.Float32, 0, 7, 3)), output = rig.Output(0, 3, 3);
        foreach (int id in new[] { 7, -1, int.MaxValue })
        {
            var refused = Assert.Throws<ArgumentException>(() => rig.Backend.Embedding(table, rig.Upload(0, id, 1), output));
            Assert.Equal($"ids: expected 0 to 6, got {id} (Parameter 'ids')", refused.Message);
            Assert.All(rig.Read(output), x => Assert.True(float.IsNaN(x)));
        }
    }

    private static float[] ReadWidened(KernelBackend backend, DeviceTensor table) => table.Type switch
    {
        ElementType.BFloat16 => Array.ConvertAll(backend.Download<BFloat16>(table), x => (float)x),
        ElementType.Float16 => Array.ConvertAll(backend.Download<Half>(table), x => (float)x),
        _ => backend.Download<float>(table),
    };
}
