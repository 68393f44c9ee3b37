using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Tensors: their views, what they refuse, and memory of somebody else.</summary>
public sealed class TensorTests : IDisposable
{
    private readonly CpuBackend _backend = new(new BackendOptions { Threads = 1 });

    public void Dispose() => _backend.Dispose();

    [Fact]
    public void Shapes_that_cannot_be_are_refused()
    {
        Refused("shape: expected sizes of 0 or more, got [2, -3]", () => _backend.Allocate(ElementType.Float32, 2, -3));
        Refused("shape: [2147483647, 2147483647, 2147483647] has more elements than can be addressed", () => _backend.Allocate(ElementType.Float32, int.MaxValue, int.MaxValue, int.MaxValue));
        using DeviceTensor six = _backend.Allocate(ElementType.Float32, 6), none = _backend.Allocate(ElementType.Float32, 0, 7);
        Refused("shape: expected sizes of 0 or more, got [-2, -3]", () => six.View(-2, -3));
        Refused("shape: expected 6 elements like [6] Float32, got [4]", () => six.View(4));
        Refused("shape: expected rows of at most 2147483647 elements, got [0, 65536, 65536]", () => _backend.Allocate(ElementType.Float32, 0, 65536, 65536));
        Refused("from: expected 6 numbers for [2, 3], got 5", () => _backend.Upload<float>(new float[5], 2, 3));
        Refused("tensor: expected 5 contiguous Float32, got [6] Float32", () => _backend.Write<float>(six, new float[5]));
        Refused("tensor: expected 6 contiguous Int32, got [6] Float32", () => _backend.Read<int>(six, new int[6]));
        Assert.Equal([0], new[] { none.Count });
        Assert.Empty(_backend.Download<float>(none));
        Assert.Throws<NotSupportedException>(() => _backend.Upload<char>("ab", 2));
    }

    [Fact]
    public void Views_share_memory_and_keep_a_row_stride_while_the_rows_stay()
    {
        using DeviceTensor matrix = _backend.Upload<float>(Enumerable.Range(0, 12).Select(i => (float)i).ToArray(), 3, 4);
        DeviceTensor columns = matrix.Slice(1, 1, 2), heads = columns.View(3, 2, 1);
        Assert.Equal([1f, 2, 5, 6, 9, 10], _backend.Download<float>(heads));
        Assert.Same(columns.First(2), columns.First(2));
        Assert.Same(columns, columns.First(3));
        Refused("shape: [3, 2] Float32 has gaps between its rows and cannot be seen as [6]", () => columns.View(6));
        _backend.Write<float>(columns.First(1), [-1, -2]);
        Assert.Equal([0, -1f, -2, 3, 4], _backend.Download<float>(matrix)[..5]);
        Assert.Throws<ArgumentOutOfRangeException>("rows", () => matrix.First(4));
        Assert.Throws<ArgumentOutOfRangeException>("start", () => matrix.Slice(0, 2, 2));
        Assert.Throws<ArgumentOutOfRangeException>("start", () => matrix.Slice(0, int.MaxValue, int.MaxValue));
        Assert.Throws<ArgumentOutOfRangeException>("dimension", () => matrix.Slice(2, 0, 1));
        heads.Dispose();                                    // owns nothing
        Assert.Equal(0, _backend.Download<float>(matrix)[0]);
        matrix.Dispose();
        Assert.Throws<ObjectDisposedException>(() => _backend.Download<float>(columns));
    }

    [Fact]
    public unsafe void Foreign_memory_is_used_where_it_lies_and_left_to_its_owner()
    {
        float* memory = stackalloc float[] { 1, 2, 3, 4, 5, 6 };
        var at = (nint)memory;
        using (DeviceTensor wrapped = _backend.Wrap(at, ElementType.Float32, [2, 2], [3, 1]))
        {
            Assert.Equal([1f, 2, 4, 5], _backend.Download<float>(wrapped));
            _backend.Add(wrapped, wrapped, wrapped);
        }

        Assert.Equal([2f, 4, 3, 8, 10, 6], new Span<float>(memory, 6).ToArray());
        Refused("pointer: expected an address, got null", () => _backend.Wrap(0, ElementType.Float32, [1]));
        Refused($"pointer: expected an address aligned to 4 bytes, got 0x{at + 2:x}", () => _backend.Wrap(at + 2, ElementType.Float32, [1]));
        Refused("shape: expected sizes of 0 or more, got [-1]", () => _backend.Wrap(at, ElementType.Float32, [-1]));
        Refused("strides: expected 2 like the shape, got 1", () => _backend.Wrap(at, ElementType.Float32, [2, 2], [1]));
        Refused("strides: expected 0 or more, got [-2, 1]", () => _backend.Wrap(at, ElementType.Float32, [2, 2], [-2, 1]));
        Refused("strides: [9223372036854775807, 9223372036854775807] reach further than can be addressed", () => _backend.Wrap(at, ElementType.Float32, [3, 3], [long.MaxValue, long.MaxValue]));
    }

    // Memory that ends where nothing more may be touched, rows some numbers apart, for every input type.
    [Fact]
    public void Attention_reads_and_writes_nothing_beside_its_rows()
    {
        using var rig = new OpRig(_backend, owner: false);
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(4, 2, 13, 16, convTaps: 5, valueDim: 7), AttentionSpec.Softmax(4, 2, 13, 7)])
        {
            foreach (ElementType type in (ElementType[])[ElementType.Float32, ElementType.BFloat16, ElementType.Float16])
            {
                float[][] results = [.. new[] { 0, 3 }.Select(gap => Attend(rig, spec, type, gap))];
                Assert.Equal(results[0], results[1]);
                Assert.DoesNotContain(float.NaN, results[0]);
            }
        }
    }

    private float[] Attend(OpRig rig, AttentionSpec spec, ElementType type, int gap)
    {
        using AttentionState state = _backend.CreateState([spec], 2, 100);
        using AttentionLayer layer = _backend.Bind(spec, AttentionRig.Weights(spec, 1).ToDictionary(weight => weight.Key, weight =>
            rig.Upload(new Argument(weight.Key == "alpha" ? [1] : [spec.QueryHeads, spec.ConvTaps], weight.Value, type))));
        List<float> results = [];
        var step = new Step();
        for (int i = 0; i < 3; i++)
        {
            step.Clear();
            step.Advance(0, 15);
            step.Verify(1, TokenTree.FromParents([-1, 0, 0, 1, 3, -1]));
            int n = step.Tokens;
            var inputs = new AttentionInputs(
                rig.Upload(Argument.Random(3 * i, type, gap, n, spec.QueryHeads, spec.HeadDim)),
                rig.Upload(Argument.Random(3 * i + 1, type, gap, n, spec.KeyValueHeads, spec.HeadDim)),
                rig.Upload(Argument.Random(3 * i + 2, type, gap, n, spec.KeyValueHeads, spec.ValueDim)));
            DeviceTensor output = rig.Output(gap, n, spec.QueryHeads, spec.ValueDim);
            _backend.Attend(layer, state[0], step, inputs, output);
            state.Complete(step);
            var accepted = new int[2 * step.MaxDepth];
            accepted.AsSpan().Fill(-1);
            ((ReadOnlySpan<int>)[0, 1, 3, 4]).CopyTo(accepted.AsSpan(step.MaxDepth));
            _backend.Commit(state, step, accepted);
            results.AddRange(rig.Read(output));
        }

        return [.. results];
    }

    private static void Refused(string message, Action act) => Assert.StartsWith(message, Assert.Throws<ArgumentException>(act).Message, StringComparison.Ordinal);
}
