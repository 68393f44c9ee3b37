using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The CPU backend's attention against itself, bit for bit, and against the oracle.</summary>
public class CpuAttentionTests
{
    private const int Past = 150, Nodes = 70, Next = 40;

    public static TheoryData<string> Names => [.. Specs.Keys];

    private static readonly Dictionary<string, AttentionSpec> Specs = new()
    {
        ["augmented"] = AttentionSpec.Augmented(4, 2, 24, 16, convTaps: 32),
        ["one group size not a power of two"] = AttentionSpec.Augmented(5, 1, 20, 23, convTaps: 5, valueDim: 33),
        ["many heads on one"] = AttentionSpec.LocalGlobal(40, 1, 16, 16, valueDim: 7),
        ["local"] = AttentionSpec.FlashLocal(2, 2, 1, 19, valueDim: 1),
        ["global"] = AttentionSpec.FlashGlobal(3, 3, 17, 16, valueDim: 48),
        ["convolution alone"] = AttentionSpec.FlashLocal(2, 1, 8, 16) with { Local = LocalKind.None, ConvTaps = 40 },
        ["yoso, norm together"] = AttentionSpec.Augmented(4, 4, 32, 16, convTaps: 1, valueDim: 20) with { Local = LocalKind.Yoso8, Norm = OutputNorm.Together },
        ["norm global"] = AttentionSpec.LocalGlobal(6, 2, 13, 16) with { Norm = OutputNorm.Global },
        ["softmax"] = AttentionSpec.Softmax(4, 2, 24),
        ["softmax, odd sizes"] = AttentionSpec.Softmax(5, 1, 17, 33) with { ScoreScale = 0.7f },
        ["castling"] = AttentionSpec.Augmented(2, 1, 16, 32, convTaps: 8) with { Norm = OutputNorm.Castling, HasAlpha = false },
    };

    [Theory]
    [MemberData(nameof(Names))]
    public void A_path_gives_the_same_bits_however_it_is_cut(string name)
    {
        using var cpu = new Runner(Specs[name], threads: 2);
        float[] whole = cpu.Advance(0, 0, Past);
        var random = new Random(7);
        var cut = new List<float>();
        for (int at = 0; at < Past;)
        {
            int count = Math.Min(random.Next(1, random.Next(1, 40)), Past - at);
            cut.AddRange(cpu.Advance(1, at, count));
            at += count;
        }

        AssertBits(whole, cut.ToArray());
        Assert.Equal(cpu.Snapshot(0), cpu.Snapshot(1));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_node_of_a_tree_gives_the_bits_of_its_path(string name)
    {
        using var cpu = new Runner(Specs[name], threads: 2);
        int width = cpu.OutputWidth;
        for (int seed = 0; seed < 3; seed++)
        {
            int past = Past - 11 * seed;
            TokenTree tree = RandomTree(seed, bushy: seed == 0);
            cpu.State.Reset(0);
            cpu.Advance(0, 0, past);
            byte[] before = cpu.Snapshot(0);
            float[] verified = cpu.Verify(0, past, tree);
            Assert.Equal(before, cpu.Snapshot(0));
            var path = new int[tree.Levels];
            foreach (int node in (int[])[tree.Count - 1, tree.Count / 2, 0, Deepest(tree)])
            {
                int length = tree.PathTo(node, path);
                cpu.State.Fork(0, 1);
                float[] advanced = cpu.AdvanceNodes(1, past, path.AsSpan(0, length));
                AssertBits(advanced.AsSpan((length - 1) * width, width), verified.AsSpan(node * width, width));
                cpu.State.Fork(0, 2);
                cpu.Commit(2, past, tree, path.AsSpan(0, length));
                Assert.Equal(cpu.Snapshot(1), cpu.Snapshot(2));
                AssertBits(cpu.Advance(1, past + length, Next), cpu.Advance(2, past + length, Next));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Threads_and_other_entries_change_no_bit(string name)
    {
        TokenTree tree = RandomTree(3, bushy: true);
        float[]? wanted = null;
        for (int threads = 1; threads <= 3; threads++)
        {
            using var cpu = new Runner(Specs[name], threads);
            cpu.Advance(0, 0, Past);
            float[] alone = cpu.Verify(0, Past, tree);
            wanted ??= alone;
            AssertBits(wanted, alone);
            cpu.Advance(1, 0, 21);
            AssertBits(wanted, cpu.VerifyBesidesAdvance(0, Past, tree, 1, 21, 50));
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void All_vector_widths_agree_with_the_oracle(string name)
    {
        AttentionSpec spec = Specs[name];
        TokenTree tree = RandomTree(5, bushy: false);
        using var oracle = new Runner(spec, new OracleBackend());
        float[] path = oracle.Advance(0, 0, Past), verified = oracle.Verify(0, Past, tree);
        foreach (int width in (int[])[16, 8, 4, 1])
        {
            using var cpu = new Runner(spec, new CpuBackend(new BackendOptions { Threads = 1 }, width));
            AssertNear(path, cpu.Advance(0, 0, Past));
            AssertNear(verified, cpu.Verify(0, Past, tree));
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_branch_of_NaN_leaves_its_siblings_alone(string name)
    {
        using var cpu = new Runner(Specs[name], threads: 1);
        int[] parents = [-1, 0, 0, 1, 2, 3, 4];             // nodes 1, 3, 5 are one branch, 2, 4, 6 the other
        TokenTree tree = TokenTree.FromParents(parents);
        cpu.Advance(0, 0, 30);
        float[] clean = cpu.Verify(0, 30, tree);
        cpu.Poison(31, 33, 35);
        float[] poisoned = cpu.Verify(0, 30, tree);
        foreach (int node in (int[])[0, 2, 4, 6])
            AssertBits(clean.AsSpan(node * cpu.OutputWidth, cpu.OutputWidth), poisoned.AsSpan(node * cpu.OutputWidth, cpu.OutputWidth));
        Assert.True(float.IsNaN(poisoned[1 * cpu.OutputWidth]));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Narrow_inputs_give_the_bits_of_their_widened_numbers(string name)
    {
        foreach (ElementType type in (ElementType[])[ElementType.BFloat16, ElementType.Float16])
        {
            using var narrow = new Runner(Specs[name], new CpuBackend(new BackendOptions { Threads = 2 }), type);
            using var wide = new Runner(Specs[name], new CpuBackend(new BackendOptions { Threads = 2 }), type, widened: true);
            AssertBits(wide.Advance(0, 0, 60), narrow.Advance(0, 0, 60));
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Steady_steps_allocate_nothing(string name)
    {
        using var cpu = new Runner(Specs[name], threads: 2);
        cpu.Advance(0, 0, 20);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 1, 1, 2, 3]);
        Allocations.RequireNone(() => cpu.Steady(0, tree, [0, 1, 4]));
    }

    private static TokenTree RandomTree(int seed, bool bushy)
    {
        var random = new Random(seed);
        return TokenTree.FromParents([.. Enumerable.Range(0, Nodes).Select(i => i == 0 ? -1 : bushy ? random.Next(-1, i) : Math.Max(-1, i - 1 - random.Next(0, 4) * random.Next(0, 2)))]);
    }

    private static int Deepest(TokenTree tree) => Enumerable.Range(0, tree.Count).First(node => tree.Depth(node) == tree.Levels - 1);

    private static void AssertBits(ReadOnlySpan<float> want, ReadOnlySpan<float> got)
    {
        Assert.Equal(want.Length, got.Length);
        for (int i = 0; i < want.Length; i++)
            if (BitConverter.SingleToInt32Bits(want[i]) != BitConverter.SingleToInt32Bits(got[i])) Assert.Fail($"[{i}]: want {want[i]:r}, got {got[i]:r}");
    }

    private static void AssertNear(float[] want, float[] got)
    {
        Assert.Equal(want.Length, got.Length);
        float largest = 1;
        foreach (float x in want) largest = Math.Max(largest, Math.Abs(x));
        for (int i = 0; i < want.Length; i++)
            if (!(Math.Abs(want[i] - got[i]) <= 2e-5f * largest)) Assert.Fail($"[{i}]: want {want[i]:r}, got {got[i]:r}, largest {largest}");
    }

    /// <summary>One layer, three slots, and random rows of query, key and value: row i of the tables is what token i brings.</summary>
    private sealed class Runner : IDisposable
    {
        private const int Rows = Past + Nodes + Next + 10;
        private readonly KernelBackend _backend;
        private readonly AttentionSpec _spec;
        private readonly DeviceTensor _query, _key, _value, _alpha, _taps, _output, _stepQuery, _stepKey, _stepValue;
        private readonly AttentionLayer _layer;
        private readonly Step _step = new();

        public Runner(AttentionSpec spec, int threads) : this(spec, new CpuBackend(new BackendOptions { Threads = threads })) { }

        public Runner(AttentionSpec spec, KernelBackend backend, ElementType type = ElementType.Float32, bool widened = false)
        {
            _backend = backend;
            _spec = spec;
            var random = new Random(42);
            // Query, key and value are columns of one matrix, as a fused projection leaves them.
            int q = spec.QueryHeads * spec.HeadDim, k = spec.KeyValueHeads * spec.HeadDim, v = spec.KeyValueHeads * spec.ValueDim;
            DeviceTensor fused = Random([Rows, q + k + v]), step = backend.Allocate(widened ? ElementType.Float32 : type, Rows, q + k + v);
            (_query, _key, _value) = (Columns(fused, 0, q, spec.QueryHeads), Columns(fused, q, k, spec.KeyValueHeads), Columns(fused, q + k, v, spec.KeyValueHeads));
            (_stepQuery, _stepKey, _stepValue) = (Columns(step, 0, q, spec.QueryHeads), Columns(step, q, k, spec.KeyValueHeads), Columns(step, q + k, v, spec.KeyValueHeads));
            _alpha = Random([1]);
            _taps = Random([spec.QueryHeads, Math.Max(1, spec.ConvTaps)]);
            _output = backend.Allocate(ElementType.Float32, Rows, spec.QueryHeads, spec.ValueDim);
            var weights = new Dictionary<string, DeviceTensor>();
            if (spec.HasAlpha) weights["alpha"] = _alpha;
            if (spec.ConvTaps > 0) weights["taps"] = _taps;
            _layer = backend.Bind(spec, weights);
            State = backend.CreateState([spec], 3, 512);

            DeviceTensor Random(int[] shape)
            {
                DeviceTensor tensor = backend.Allocate(widened ? ElementType.Float32 : type, shape);
                var numbers = new float[tensor.Count];
                for (int i = 0; i < numbers.Length; i++) numbers[i] = random.NextSingle() * 2 - 1;
                if (type == ElementType.BFloat16) numbers = Array.ConvertAll(numbers, x => (float)(BFloat16)x);
                if (type == ElementType.Float16) numbers = Array.ConvertAll(numbers, x => (float)(Half)x);
                if (tensor.Type == ElementType.BFloat16) backend.Write<BFloat16>(tensor, Array.ConvertAll(numbers, x => (BFloat16)x));
                else if (tensor.Type == ElementType.Float16) backend.Write<Half>(tensor, Array.ConvertAll(numbers, x => (Half)x));
                else backend.Write<float>(tensor, numbers);
                return tensor;
            }

            static DeviceTensor Columns(DeviceTensor fused, int first, int count, int heads) => fused.Slice(1, first, count).View(fused.Rows, heads, count / heads);
        }

        public AttentionState State { get; }

        public int OutputWidth => _spec.QueryHeads * _spec.ValueDim;

        public float[] Advance(int slot, int token, int count) => AdvanceNodes(slot, token, [.. Enumerable.Range(0, count)]);

        /// <summary>Advances over tokens <c>token + node</c>.</summary>
        public float[] AdvanceNodes(int slot, int token, ReadOnlySpan<int> nodes)
        {
            _step.Clear();
            _step.Advance(slot, nodes.Length);
            for (int i = 0; i < nodes.Length; i++) Bring(i, token + nodes[i]);
            return Run();
        }

        public float[] Verify(int slot, int token, TokenTree tree)
        {
            _step.Clear();
            _step.Verify(slot, tree);
            for (int i = 0; i < tree.Count; i++) Bring(i, token + i);
            return Run();
        }

        public float[] VerifyBesidesAdvance(int slot, int token, TokenTree tree, int otherSlot, int otherToken, int otherCount)
        {
            _step.Clear();
            _step.Advance(otherSlot, otherCount);
            _step.Verify(slot, tree);
            for (int i = 0; i < otherCount; i++) Bring(i, otherToken + i);
            for (int i = 0; i < tree.Count; i++) Bring(otherCount + i, token + i);
            return Run()[(otherCount * OutputWidth)..];
        }

        public void Commit(int slot, int token, TokenTree tree, ReadOnlySpan<int> path)
        {
            Verify(slot, token, tree);
            int[] accepted = new int[_step.MaxDepth];
            Array.Fill(accepted, -1);
            path.CopyTo(accepted);
            _backend.Commit(State, _step, accepted);
        }

        /// <summary>A decode step, then a verification and its commit, without anything that allocates.</summary>
        public void Steady(int slot, TokenTree tree, ReadOnlySpan<int> accepted)
        {
            _step.Clear();
            _step.Advance(slot, 1);
            Attend();
            _step.Clear();
            _step.Verify(slot, tree);
            Attend();
            Span<int> row = stackalloc int[tree.Levels];
            row.Fill(-1);
            accepted.CopyTo(row);
            _backend.Commit(State, _step, row);
        }

        public byte[] Snapshot(int slot)
        {
            using var stream = new MemoryStream();
            State.Snapshot(slot, stream);
            return stream.ToArray();
        }

        /// <summary>Makes what tokens bring NaN.</summary>
        public void Poison(params ReadOnlySpan<int> tokens)
        {
            foreach (int token in tokens)
                foreach (DeviceTensor table in (DeviceTensor[])[_query, _key, _value])
                {
                    var row = new float[table.RowLength];
                    Array.Fill(row, float.NaN);
                    _backend.Write<float>(table.Slice(0, token, 1), row);
                }
        }

        public void Dispose()
        {
            State.Dispose();
            _layer.Dispose();
            _backend.Dispose();
        }

        private float[] Run()
        {
            Attend();
            return _backend.Download<float>(_output.First(_step.Tokens));
        }

        private void Attend()
        {
            int n = _step.Tokens;
            _backend.Attend(_layer, State[0], _step, new AttentionInputs(_stepQuery.First(n), _stepKey.First(n), _stepValue.First(n)), _output.First(n));
            State.Complete(_step);
        }

        private void Bring(int row, int token)
        {
            Copy(_query, _stepQuery);
            Copy(_key, _stepKey);
            Copy(_value, _stepValue);

            void Copy(DeviceTensor from, DeviceTensor to)
            {
                DeviceTensor source = from.Slice(0, token, 1), target = to.Slice(0, row, 1);
                if (from.Type == ElementType.BFloat16) _backend.Write<BFloat16>(target, _backend.Download<BFloat16>(source));
                else if (from.Type == ElementType.Float16) _backend.Write<Half>(target, _backend.Download<Half>(source));
                else _backend.Write<float>(target, _backend.Download<float>(source));
            }
        }
    }
}
