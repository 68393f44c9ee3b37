using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>What states, steps and attention refuse, in which words, and that nothing has moved then.</summary>
public class StateTests
{
    private const int Group = 16;
    private static readonly AttentionSpec Spec = AttentionSpec.Augmented(2, 1, 5, Group, convTaps: 3, valueDim: 3);
    private static readonly AttentionSpec Growing = AttentionSpec.Softmax(2, 1, 5, 3);

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names];

    [Theory, MemberData(nameof(Names))]
    public void A_step_that_nobody_completes_leaves_its_slots_broken_and_the_others_alone(string name)
    {
        using var sequence = new Life(name, [Spec, Growing]);
        sequence.Advance(0, Group - 1);
        sequence.Advance(1, 3);
        byte[] before = sequence.Rig.Snapshot(0), other = sequence.Rig.Snapshot(1);
        Step step = sequence.Rig.Step;
        step.Clear();
        step.Advance(0, 2);
        step.Verify(1, TokenTree.Path(2));
        step.Advance(2, 0);
        sequence.Rig.Attend(0, Feed.Advance(0, sequence.Tokens(2)), Feed.Verify(1, TokenTree.Path(2), sequence.Tokens(2)), Feed.Advance(2, sequence.Tokens(0)));
        step.Clear();                                       // the second layer never comes

        AttentionState state = sequence.Rig.State;
        Assert.Equal([true, false, false], new[] { 0, 1, 2 }.Select(state.IsBroken));
        const string Broken = "slot 0 was left half-written by a step that was not completed; Reset or Restore it";
        step.Advance(0, 1);
        Assert.Equal(Broken, Assert.Throws<BrokenSlotException>(() => state.Begin(step)).Message);
        Assert.Equal(Broken, Assert.Throws<BrokenSlotException>(() => state.Fork(0, 1)).Message);
        Assert.Equal(Broken, Assert.Throws<BrokenSlotException>(() => state.Rewind(0, 1)).Message);
        Assert.Equal(Broken, Assert.Throws<BrokenSlotException>(() => sequence.Rig.Snapshot(0)).Message);
        Assert.Equal(other, sequence.Rig.Snapshot(1));
        sequence.Rig.Restore(0, before);
        Assert.Equal(before, sequence.Rig.Snapshot(0));
        sequence.Advance(0, 2);
        Assert.False(state.IsBroken(0));
    }

    [Theory, MemberData(nameof(Names))]
    public void Reset_and_Fork_make_a_broken_slot_whole(string name)
    {
        using var sequence = new Life(name, [Spec, Spec]);
        sequence.Advance(1, 5);
        foreach (Action<AttentionState> mend in (Action<AttentionState>[])[state => state.Reset(0), state => state.Fork(1, 0)])
        {
            sequence.Rig.Step.Clear();
            sequence.Rig.Step.Advance(0, Group);
            sequence.Rig.Attend(0, Feed.Advance(0, sequence.Tokens(Group)));
            mend(sequence.Rig.State);
            Assert.Contains("slot 0 has moved", Assert.Throws<InvalidOperationException>(() => sequence.Rig.Attend(1, Feed.Advance(0, sequence.Tokens(Group)))).Message, StringComparison.Ordinal);
            Assert.False(sequence.Rig.State.IsBroken(0));
        }

        Assert.Equal(sequence.Rig.Snapshot(1), sequence.Rig.Snapshot(0));
    }

    [Theory, MemberData(nameof(Names))]
    public void A_layer_attends_once_and_no_layer_may_be_missing(string name)
    {
        using var sequence = new Life(name, [Spec, Spec]);
        Step step = sequence.Rig.Step;
        step.Advance(0, 1);
        Feed feed = Feed.Advance(0, sequence.Tokens(1));
        Assert.Equal("step: has not begun", Assert.Throws<InvalidOperationException>(() => sequence.Rig.State.Complete(step)).Message);
        sequence.Rig.Attend(0, feed);
        Assert.Equal("step: layer 0 has attended already", Assert.Throws<InvalidOperationException>(() => sequence.Rig.Attend(0, feed)).Message);
        Assert.Equal("step: layer 1 of 2 has not attended; complete a step once after its last layer", Assert.Throws<InvalidOperationException>(() => sequence.Rig.State.Complete(step)).Message);
        Assert.Equal("the step has begun; Clear it before adding", Assert.Throws<InvalidOperationException>(() => step.Advance(1, 1)).Message);
        Assert.Equal("step: has begun already; Clear it and Add its entries anew", Assert.Throws<InvalidOperationException>(() => sequence.Rig.State.Begin(step)).Message);
        sequence.Rig.Attend(1, feed);
        sequence.Rig.State.Complete(step);
        Assert.Equal("step: expected Begun, is Completed", Assert.Throws<InvalidOperationException>(() => sequence.Rig.State.Complete(step)).Message);
        Assert.Equal(1, sequence.Rig.State.Length(0));
    }

    [Theory, MemberData(nameof(Names))]
    public void Only_paths_of_the_tree_that_was_verified_are_committed(string name)
    {
        using var sequence = new Life(name, [Spec, Growing]);
        sequence.Advance(0, 5);
        sequence.Advance(1, 2);
        byte[] before = sequence.Rig.Snapshot(0);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 2, -1]);
        foreach ((int[] path, string why) in new (int[], string)[]
        {
            ([0, 3, -1], "accepted: entry 0: node 3 is not a child of 0 in its tree of 5 nodes"),
            ([1, -1, -1], "accepted: entry 0: node 1 is not a child of -1 in its tree of 5 nodes"),
            ([0, 2, 5], "accepted: entry 0: node 5 is not a child of 2 in its tree of 5 nodes"),
            ([0, -2, -1], "accepted: entry 0: node -2 is not a child of 0 in its tree of 5 nodes"),
            ([-1, 4, -1], "accepted: entry 0: -1 before the path's end"),
        })
        {
            sequence.Verify(0, tree);
            Assert.Equal($"{why} (Parameter 'accepted')", Assert.Throws<ArgumentException>(() => sequence.Commit(path)).Message);
            // On a device the next reading reports it.
            Assert.Equal($"{why} (Parameter 'accepted')", Assert.Throws<ArgumentException>(() =>
            {
                sequence.CommitOnDevice(path, 0);
                sequence.Rig.State.Length(0);
            }).Message);
            Assert.Equal(5, sequence.Rig.State.Length(0));
        }

        sequence.Verify(0, tree);                           // on a device the last step is spent
        Assert.Equal("accepted: expected [1, 3] int32, got 2 numbers (Parameter 'accepted')", Assert.Throws<ArgumentException>(() => sequence.Commit([0, 2])).Message);
        Assert.Equal(before, sequence.Rig.Snapshot(0));

        sequence.Rig.Run(Feed.Verify(0, TokenTree.Path(1), sequence.Tokens(1)), Feed.Advance(1, sequence.Tokens(1)));
        Assert.Equal("accepted: entry 1 moves by itself, its row must be -1 throughout, got 0 (Parameter 'accepted')", Assert.Throws<ArgumentException>(() => sequence.Commit([0, 0])).Message);
        Assert.Equal(before, sequence.Rig.Snapshot(0));
        sequence.Commit([0, -1]);
        Assert.Equal(6, sequence.Rig.State.Length(0));
        Assert.Equal("step: expected Completed, is Committed", Assert.Throws<InvalidOperationException>(() => sequence.Commit([0, -1])).Message);
    }

    [Theory, MemberData(nameof(Names))]
    public void A_tree_is_committed_only_while_its_slot_stands_where_it_stood(string name)
    {
        using var sequence = new Life(name, [Spec, Growing]);
        AttentionState state = sequence.Rig.State;
        Action<int>[] moves = [slot => sequence.Advance(slot, 1), state.Reset, slot => state.Rewind(slot, 1), slot => state.Fork(1, slot), slot => sequence.Rig.Restore(slot, sequence.Rig.Snapshot(1)), Fail];
        foreach (Action<int> move in moves)
        {
            state.Reset(0);
            sequence.Advance(0, 3);
            var verified = new Step();
            verified.Verify(0, TokenTree.Path(2));
            sequence.Run(verified);
            move(0);
            int length = state.Length(0);
            Assert.Equal("step: slot 0 has moved or begun another step since this one began", Assert.Throws<InvalidOperationException>(() => sequence.Rig.Backend.Commit(state, verified, [0, 1])).Message);
            Assert.Equal(length, state.Length(0));
        }

        var never = new Step();
        never.Verify(0, TokenTree.Path(2));
        Assert.Equal("step: has not begun", Assert.Throws<InvalidOperationException>(() => sequence.Rig.Backend.Commit(state, never, [0, 1])).Message);
        state.Begin(never);
        Assert.Equal("step: expected Completed, is Begun", Assert.Throws<InvalidOperationException>(() => sequence.Rig.Backend.Commit(state, never, [0, 1])).Message);

        // A later step of the slot, given up before its first layer.
        void Fail(int slot)
        {
            var later = new Step();
            later.Verify(slot, TokenTree.Path(1));
            state.Begin(later);
            state.Abandon(later);
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Accepted_paths_on_the_device_may_lie_apart(string name)
    {
        using var sequence = new Life(name, [Spec]);
        foreach (int gap in new[] { 0, 2 })
        {
            sequence.Rig.Run(Feed.Verify(0, TokenTree.FromParents([-1, 0, 0]), sequence.Tokens(3)), Feed.Verify(1, TokenTree.Path(1), sequence.Tokens(1)));
            sequence.CommitOnDevice([0, 2, 0, -1], gap);
        }

        Assert.Equal([4, 2], new[] { 0, 1 }.Select(sequence.Rig.State.Length));
    }

    [Theory, MemberData(nameof(Names))]
    public void Past_its_capacity_a_slot_takes_nothing(string name)
    {
        using var sequence = new Life(name, [Spec, Growing], capacity: 20);
        sequence.Advance(0, 19);
        byte[] before = sequence.Rig.Snapshot(0);
        foreach ((Feed feed, int reach) in new[] { (Feed.Advance(0, sequence.Tokens(2)), 21), (Feed.Verify(0, TokenTree.Path(3), sequence.Tokens(3)), 22) })
            Assert.Equal($"slot 0 holds at most 20 positions; it has 19 and the step reaches {reach}", Assert.Throws<OutOfCapacityException>(() => sequence.Rig.Run(feed)).Message);
        Assert.Equal(before, sequence.Rig.Snapshot(0));
        sequence.Verify(0, TokenTree.FromParents([-1, -1, -1]));
        sequence.Commit([2]);
        Assert.Equal(20, sequence.Rig.State.Length(0));

        using var small = new Life(name, [Spec, Growing], capacity: 19);
        Assert.Equal("slot 2 holds at most 19 positions, the snapshot has 20", Assert.Throws<OutOfCapacityException>(() => small.Rig.Restore(2, sequence.Rig.Snapshot(0))).Message);

        using var constant = new Life(name, [Spec], capacity: 1);
        constant.Advance(0, 50);
        Assert.False(constant.Rig.State.Grows);
    }

    [Theory, MemberData(nameof(Names))]
    public void Rewind_stops_at_the_last_block_boundary(string name)
    {
        using var sequence = new Life(name, [Spec, Growing]);
        sequence.Advance(0, Group + 3);
        byte[] before = sequence.Rig.Snapshot(0);
        foreach (int tokens in new[] { 4, -1, int.MinValue })
        {
            Assert.Equal($"tokens: slot 0 can go back 0 to 3 tokens (length 19, to its last block boundary at most), got {tokens} (Parameter 'tokens')",
                Assert.Throws<ArgumentException>(() => sequence.Rig.State.Rewind(0, tokens)).Message);
        }

        Assert.Equal(before, sequence.Rig.Snapshot(0));
        sequence.Rig.State.Rewind(0, 3);
        Assert.Equal(Group, sequence.Rig.State.Length(0));
        Assert.Throws<ArgumentException>(() => sequence.Rig.State.Rewind(0, 1));

        using var growing = new Life(name, [Growing]);
        growing.Advance(0, 130);
        growing.Rig.State.Rewind(0, 130);
        Assert.Equal(0, growing.Rig.State.Length(0));
    }

    [Theory, MemberData(nameof(Names))]
    public void Slots_that_do_not_exist_are_refused(string name)
    {
        using var sequence = new Life(name, [Spec]);
        AttentionState state = sequence.Rig.State;
        foreach (int slot in new[] { -1, 5 })
        {
            foreach (Action act in (Action[])[() => state.Length(slot), () => state.IsBroken(slot), () => state.Reset(slot), () => state.Rewind(slot, 0), () => state.Fork(0, slot), () => state.Fork(slot, 0),
                () => state.Bytes(slot), () => sequence.Rig.Snapshot(slot), () => sequence.Rig.Restore(slot, sequence.Rig.Snapshot(0))])
                Assert.StartsWith("expected 0 to 4 (Parameter 'slot')", Assert.Throws<ArgumentOutOfRangeException>(act).Message, StringComparison.Ordinal);
        }

        Assert.StartsWith("expected 0 to 4 (Parameter 'slot')", Assert.Throws<ArgumentOutOfRangeException>(() => sequence.Advance(5, 1)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_step_refuses_entries_that_do_not_fit()
    {
        var step = new Step();
        step.Advance(3, 2);
        Assert.Equal("slot: 3 is already in this step (Parameter 'slot')", Assert.Throws<ArgumentException>(() => step.Verify(3, TokenTree.Path(1))).Message);
        Assert.Throws<ArgumentOutOfRangeException>(() => step.Advance(-1, 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => step.Advance(1, -1));
        Assert.Equal("tree: an entry that moves takes a path, got a tree with branches (Parameter 'tree')", Assert.Throws<ArgumentException>(() => step.Add(1, TokenTree.FromParents([-1, -1]), moves: true)).Message);
        Assert.Equal("tree: an entry that does not move has at most 1024 nodes, got 1025 (Parameter 'tree')", Assert.Throws<ArgumentException>(() => step.Verify(1, TokenTree.Path(1025))).Message);
        foreach (int tokens in new[] { int.MaxValue, int.MaxValue - 1 })
            Assert.Equal($"tree: a step holds at most {Array.MaxLength} tokens, has 2 and got {tokens} more (Parameter 'tree')", Assert.Throws<ArgumentException>(() => step.Advance(1, tokens)).Message);
        Assert.Throws<InvalidOperationException>(() => step.Positions.Length);
        Assert.Equal((1, 2, 1), (step.Entries, step.Tokens, step.LogitCount));
    }

    [Theory, MemberData(nameof(Names))]
    public void Inputs_of_another_shape_type_or_backend_are_refused_untouched(string name)
    {
        using var sequence = new Life(name, [Spec]);
        using KernelBackend backend = BackendsUnderTest.Open(name);
        KernelBackend own = sequence.Rig.Backend;
        Step step = sequence.Rig.Step;
        step.Advance(0, 2);
        DeviceTensor wide = own.Allocate(ElementType.Float32, 2, 10), query = wide.View(2, 2, 5);
        DeviceTensor key = own.Allocate(ElementType.Float32, 2, 1, 5), value = own.Allocate(ElementType.Float32, 2, 1, 3), output = own.Allocate(ElementType.Float32, 2, 2, 3);
        string floats = name == "oracle" ? "Float32|BFloat16|Float16|Float64" : "Float32|BFloat16|Float16", outputs = name == "oracle" ? "Float32|Float64" : "Float32";
        Refused($"query: expected [2, 2, 5] {floats}, got [3, 2, 5] Float32", new(own.Allocate(ElementType.Float32, 3, 2, 5), key, value), output);
        Refused("query: expected contiguous inner dimensions, got [2, 2, 5] Float32 with strides [16, 8, 1]", new(own.Allocate(ElementType.Float32, 2, 2, 8).Slice(2, 0, 5), key, value), output);
        Refused($"key: expected [2, 1, 5] {floats}, got [2, 1, 5] Int32", new(query, own.Allocate(ElementType.Int32, 2, 1, 5), value), output);
        Refused($"value: expected memory of {name}, got memory of another {name}", new(query, key, backend.Allocate(ElementType.Float32, 2, 1, 3)), output);
        Refused($"output: expected [2, 2, 3] {outputs}, got [2, 2, 3] Float16", new(query, key, value), own.Allocate(ElementType.Float16, 2, 2, 3));
        Refused("output: shares memory with query", new(query, key, value), wide.Slice(1, 4, 6).View(2, 2, 3));
        Assert.Throws<ArgumentNullException>("key", () => Attend(new(query, null!, value), output));
        DeviceTensor gone = own.Allocate(ElementType.Float32, 2, 1, 3);
        gone.Dispose();
        gone.Dispose();
        Assert.Throws<ObjectDisposedException>(() => Attend(new(query, key, gone), output));

        // Nothing has begun: the very same step goes through.
        Attend(new(query, key, value), output);
        sequence.Rig.State.Complete(step);
        Assert.Equal(2, sequence.Rig.State.Length(0));

        void Attend(AttentionInputs inputs, DeviceTensor to) => own.Attend(sequence.Rig.Layers[0], sequence.Rig.State[0], step, inputs, to);

        void Refused(string message, AttentionInputs inputs, DeviceTensor to) =>
            Assert.StartsWith(message, Assert.Throws<ArgumentException>(() => Attend(inputs, to)).Message, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Names))]
    public void What_belongs_elsewhere_or_was_given_back_is_refused(string name)
    {
        using var sequence = new Life(name, [Spec]);
        using var other = new Life(name, [Spec]);
        using var softmax = new AttentionRig(sequence.Rig.Backend, [Growing]);
        KernelBackend backend = sequence.Rig.Backend;
        Step step = sequence.Rig.Step;
        step.Advance(0, 0);
        using DeviceTensor query = backend.Allocate(ElementType.Float32, 0, 2, 5), key = backend.Allocate(ElementType.Float32, 0, 1, 5), value = backend.Allocate(ElementType.Float32, 0, 1, 3), output = backend.Allocate(ElementType.Float32, 0, 2, 3);
        Assert.StartsWith($"layer: bound to {name}, not to this {name}", Assert.Throws<ArgumentException>(() => Attend(other.Rig.Layers[0], sequence.Rig.State)).Message, StringComparison.Ordinal);
        Assert.StartsWith($"state: belongs to {name}, not to this {name}", Assert.Throws<ArgumentException>(() => Attend(sequence.Rig.Layers[0], other.Rig.State)).Message, StringComparison.Ordinal);
        Assert.StartsWith($"state: layer 0 is of another spec: expected {Spec}, got {Growing}", Assert.Throws<ArgumentException>(() => Attend(sequence.Rig.Layers[0], softmax.State)).Message, StringComparison.Ordinal);

        using (DeviceTensor alpha = backend.Allocate(ElementType.Float32, 1), taps = backend.Allocate(ElementType.Float32, 2, 3))
        {
            using AttentionLayer bound = backend.Bind(Spec, new Dictionary<string, DeviceTensor> { ["alpha"] = alpha, ["taps"] = taps });
            taps.Dispose();
            Assert.Contains("a tensor that it binds was given back", Assert.Throws<ObjectDisposedException>(() => Attend(bound, sequence.Rig.State)).Message, StringComparison.Ordinal);
        }

        Attend(sequence.Rig.Layers[0], sequence.Rig.State);
        sequence.Rig.State.Complete(step);
        sequence.Rig.State.Dispose();
        sequence.Rig.State.Dispose();
        step.Clear();
        step.Advance(0, 0);
        foreach (Action act in (Action[])[() => Attend(sequence.Rig.Layers[0], sequence.Rig.State), () => sequence.Rig.State.Begin(step), () => sequence.Rig.State.Reset(0), () => sequence.Rig.Snapshot(0)])
            Assert.Throws<ObjectDisposedException>(act);

        void Attend(AttentionLayer layer, AttentionState state) => backend.Attend(layer, state[0], step, new AttentionInputs(query, key, value), output);
    }

    [Theory, MemberData(nameof(Names))]
    public void Layers_bind_exactly_their_tensors(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using DeviceTensor alpha = backend.Allocate(ElementType.Float32, 1), taps = backend.Allocate(ElementType.Float32, 2, 3), wrong = backend.Allocate(ElementType.Float32, 3, 2);
        Refused("weights: taps is missing for this spec", new() { ["alpha"] = alpha });
        Refused("weights: gate is not a tensor of this spec", new() { ["alpha"] = alpha, ["taps"] = taps, ["gate"] = alpha });
        Refused("taps: expected [2, 3] ", new() { ["alpha"] = alpha, ["taps"] = wrong });

        void Refused(string message, Dictionary<string, DeviceTensor> weights) =>
            Assert.StartsWith(message, Assert.Throws<ArgumentException>(() => backend.Bind(Spec, weights)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Specs_that_mean_nothing_or_are_not_computed_are_refused()
    {
        (AttentionSpec Spec, string Why)[] cases =
        [
            (Spec with { Attention = "flush" }, "Attention: \"flush\" is none of softmax, flash"),
            (Spec with { QueryHeads = 0 }, "QueryHeads: expected 1 or more, got 0"),
            (Spec with { KeyValueHeads = 0 }, "KeyValueHeads: expected 1 or more, got 0"),
            (Spec with { QueryHeads = 3, KeyValueHeads = 2 }, "QueryHeads: expected a multiple of KeyValueHeads 2, got 3"),
            (Spec with { HeadDim = 0 }, "HeadDim: expected 1 or more, got 0"),
            (Spec with { ValueDim = -1 }, "ValueDim: expected 1 or more, got -1"),
            (Spec with { ConvTaps = -1 }, "ConvTaps: expected 0 or more, got -1"),
            (Spec with { NormEpsilon = float.NaN }, "NormEpsilon: expected 0 or more, got NaN"),
            (Spec with { GroupSize = 0 }, "GroupSize: grouped attention has groups, got 0"),
            (Spec with { ScoreScale = 2 }, "ScoreScale: grouped attention normalises query and key instead, got 2"),
            (Spec with { Global = false }, "HasAlpha: there is no global part to scale"),
            (Growing with { GroupSize = 16 }, "GroupSize: softmax has no groups, expected 0, got 16"),
            (Growing with { ScoreScale = float.PositiveInfinity }, "ScoreScale: expected a finite number, got Infinity"),
            (Growing with { ConvTaps = 4 }, "ConvTaps: softmax with a convolution is not built, got 4"),
        ];
        foreach (string name in BackendsUnderTest.Names)
        {
            using KernelBackend backend = BackendsUnderTest.Open(name);
            foreach ((AttentionSpec spec, string why) in cases) Refused(backend, spec, why);
        }

        using var cpu = new CpuBackend();
        Refused(cpu, Spec with { GroupSize = 15 }, "GroupSize: expected 0 or 16 to 1048576, got 15");
        Refused(cpu, Spec with { GroupSize = int.MaxValue }, "GroupSize: expected 0 or 16 to 1048576, got 2147483647");
        Refused(cpu, Spec with { ConvTaps = int.MaxValue }, "ConvTaps: expected 0 to 1048576, got 2147483647");
        Refused(cpu, Spec with { HeadDim = 257 }, "HeadDim: expected 1 to 256, got 257");
        Refused(cpu, Spec with { ValueDim = 4097 }, "ValueDim: expected 1 to 4096, got 4097");

        static void Refused(KernelBackend backend, AttentionSpec spec, string why)
        {
            Assert.False(backend.Supports(spec, out string said));
            Assert.Equal(why, said);
            Assert.Equal($"{backend.Name}: {why}", Assert.Throws<NotSupportedException>(() => backend.Bind(spec)).Message);
            Assert.Equal($"{backend.Name}: {why}", Assert.Throws<NotSupportedException>(() => backend.CreateState([spec], 1, 1)).Message);
            Assert.Equal($"{backend.Name}: not supported: {why}", backend.Describe(spec));
        }
    }

    [Fact]
    public void A_state_too_large_for_the_memory_is_refused_and_the_backend_stays_usable()
    {
        using var backend = new CpuBackend(new BackendOptions { Threads = 1 });
        AttentionSpec large = AttentionSpec.Augmented(1 << 12, 1 << 12, 256, 1 << 20, valueDim: 4096);
        Assert.StartsWith("host memory: asked for ", Assert.Throws<OutOfDeviceMemoryException>(() => backend.CreateState([Spec, large], 4, 1)).Message, StringComparison.Ordinal);
        Assert.StartsWith("host memory: asked for ", Assert.Throws<OutOfDeviceMemoryException>(() => backend.Allocate(ElementType.Float64, int.MaxValue, 1 << 20)).Message, StringComparison.Ordinal);
        using AttentionState state = backend.CreateState([Spec], 1, 1);
        Assert.Equal(0, state.Length(0));
    }

    /// <summary>A backend, an attention rig on it, and random tokens for it.</summary>
    private sealed class Life : IDisposable
    {
        private readonly KernelBackend _backend;
        private readonly Random _random = new(3);

        public Life(string name, AttentionSpec[] specs, int capacity = 4096)
        {
            _backend = BackendsUnderTest.Open(name);
            Rig = new AttentionRig(_backend, specs, capacity: capacity);
        }

        public AttentionRig Rig { get; }

        public Tokens Tokens(int count) => Harness.Tokens.Random(_random, Spec, count);

        public void Advance(int slot, int count) => Rig.Run(Feed.Advance(slot, Tokens(count)));

        public void Verify(int slot, TokenTree tree) => Rig.Run(Feed.Verify(slot, tree, Tokens(tree.Count)));

        public void Commit(int[] accepted) => _backend.Commit(Rig.State, Rig.Step, accepted);

        public void CommitOnDevice(int[] accepted, int gap)
        {
            int rows = Rig.Step.Entries, width = Rig.Step.MaxDepth;
            using DeviceTensor wide = _backend.Allocate(ElementType.Int32, rows, width + gap);
            DeviceTensor paths = wide.Slice(1, 0, width);
            _backend.Write<int>(paths, accepted);
            _backend.Commit(Rig.State, Rig.Step, paths);
        }

        /// <summary>Runs a step of the caller's own.</summary>
        public void Run(Step step)
        {
            for (int layer = 0; layer < Rig.Layers.Length; layer++)
            {
                Tokens tokens = Tokens(step.Tokens);
                using DeviceTensor query = _backend.Upload<float>(tokens.Query, step.Tokens, Spec.QueryHeads, Spec.HeadDim), key = _backend.Upload<float>(tokens.Key, step.Tokens, Spec.KeyValueHeads, Spec.HeadDim);
                using DeviceTensor value = _backend.Upload<float>(tokens.Value, step.Tokens, Spec.KeyValueHeads, Spec.ValueDim), output = _backend.Allocate(ElementType.Float32, step.Tokens, Spec.QueryHeads, Spec.ValueDim);
                _backend.Attend(Rig.Layers[layer], Rig.State[layer], step, new AttentionInputs(query, key, value), output);
            }

            Rig.State.Complete(step);
        }

        public void Dispose()
        {
            Rig.Dispose();
            _backend.Dispose();
        }
    }
}
