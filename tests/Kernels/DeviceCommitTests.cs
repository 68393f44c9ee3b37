using ILGPU.Runtime.OpenCL;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Commits of paths that lie in the backend's memory: what they do, and what becomes of rows that are no paths.</summary>
public class DeviceCommitTests
{
    private const int Group = 16;

    // Two group sizes, so that their boundaries differ, with and without a convolution; and the one that grows.
    private static readonly AttentionSpec[] Specs =
        [AttentionSpec.Augmented(2, 1, 5, Group, convTaps: 3, valueDim: 7), AttentionSpec.FlashLocal(2, 1, 5, 24, 7), AttentionSpec.Softmax(2, 1, 5, 7)];

    // Node 3 branches off; a path of 40 lies on two boundaries, wherever it begins.
    private static readonly TokenTree Tree = TokenTree.FromParents([.. Enumerable.Range(-1, 40), 3, 40, 41, -1, 20]);

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names];

    public static TheoryData<string> Devices => IlgpuDevices.Names;

    public static TheoryData<string> Asynchronous => IlgpuDevices.Asynchronous;

    [Theory, MemberData(nameof(Names))]
    public void The_device_commits_what_the_host_would(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        var random = new Random(7);
        bool quick = BackendsUnderTest.IsForDebugging(name);
        foreach (int past in quick ? (int[])[Group - 4] : [0, 1, Group - 4, Group - 1, Group, 24 - 4, 2 * 24 - 4])
        {
            rig.State.Reset(0);
            if (past > 0) rig.Run(Feed.Advance(0, Tokens.Random(random, Specs[0], past)));
            Tokens nodes = Tokens.Random(random, Specs[0], Tree.Count), next = Tokens.Random(random, Specs[0], 1);
            // Before, at and behind a boundary, over two of them, along branches, and nothing.
            foreach (int node in quick ? (int[])[3, 41] : [0, 2, 3, 4, 40, 42, 43, 44, Group - 1, Group, 39, -1])
            {
                int[] path = PathTo(node);
                rig.State.Fork(0, 1);
                rig.State.Fork(0, 2);
                rig.Run(Feed.Verify(1, Tree, nodes));
                rig.Commit([path]);
                rig.Run(Feed.Verify(2, Tree, nodes));
                rig.CommitOnDevice(path);
                Assert.Equal(past + path.Length, rig.State.Length(2));
                Assert.Equal(rig.Snapshot(1), rig.Snapshot(2));
                double[][] after = rig.Run(Feed.Advance(1, next), Feed.Advance(2, next));
                Close.SameBits(after[0], after[1], $"{name}: after {past}, path to {node}");
            }
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Entries_of_all_kinds_are_committed_together(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        using var alone = new AttentionRig(backend, Specs);
        var random = new Random(8);
        Feed[] pasts = [.. new[] { 14, 3, 0, 16 }.Select((past, slot) => Feed.Advance(slot, Tokens.Random(random, Specs[0], past)))];
        Feed[] feeds =
        [
            Feed.Verify(3, TokenTree.Path(3), Tokens.Random(random, Specs[0], 3)), Feed.Advance(1, Tokens.Random(random, Specs[0], 20)),
            Feed.Verify(0, Tree, Tokens.Random(random, Specs[0], Tree.Count)), Feed.Verify(2, TokenTree.Path(0), Tokens.Random(random, Specs[0], 0)),
        ];
        int[][] paths = [[0, 1], [], PathTo(4), []];
        rig.Run(pasts);
        rig.Run(feeds);
        rig.CommitOnDevice(paths);
        foreach (Feed past in pasts) alone.Run(past);
        for (int i = 0; i < feeds.Length; i++)
        {
            alone.Run(feeds[i]);
            alone.Commit([paths[i]]);
        }

        for (int slot = 0; slot < pasts.Length; slot++) Assert.Equal(alone.Snapshot(slot), rig.Snapshot(slot));
    }

    [Theory, MemberData(nameof(Devices))]
    public void A_row_that_is_no_path_leaves_its_slot_and_moves_the_others(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        var random = new Random(9);
        for (int slot = 0; slot < 5; slot++) rig.Run(Feed.Advance(slot, Tokens.Random(random, Specs[0], 3 + slot)));
        byte[] first = rig.Snapshot(0), third = rig.Snapshot(2);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 2, -1]);
        rig.Run(Feed.Verify(0, tree, Tokens.Random(random, Specs[0], 5)), Feed.Verify(1, tree, Tokens.Random(random, Specs[0], 5)),
            Feed.Verify(2, tree, Tokens.Random(random, Specs[0], 5)), Feed.Advance(3, Tokens.Random(random, Specs[0], 2)));
        rig.CommitOnDevice([0, 3], [0, 2, 3], [-1, 4], [1]);
        const string Message = "accepted: entry 0: node 3 is not a child of 0 in its tree of 5 nodes; entry 2: -1 before the path's end; entry 3 moves by itself, its row must be -1 throughout, got 1 (Parameter 'accepted')";
        Assert.Equal(Message, Assert.Throws<ArgumentException>(() => rig.State.Length(1)).Message);
        Assert.Equal([3, 7, 5, 8, 7], Enumerable.Range(0, 5).Select(rig.State.Length));
        Assert.Equal((first, third), (rig.Snapshot(0), rig.Snapshot(2)), ((byte[], byte[]) a, (byte[], byte[]) b) => a.Item1.SequenceEqual(b.Item1) && a.Item2.SequenceEqual(b.Item2));
        Assert.False(rig.State.IsBroken(0));
        Assert.All(rig.Run(Feed.Advance(0, Tokens.Random(random, Specs[0], 1)))[0], x => Assert.True(double.IsFinite(x)));
    }

    // At the depth of another's child, of no node, of a number below -1, deeper than the tree.
    [Theory, MemberData(nameof(Devices))]
    public void Each_wrong_row_is_found_and_told_in_the_hosts_words(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 2, -1]);
        Tokens nodes = Tokens.Random(new Random(14), Specs[0], 5);
        foreach (int[] row in (int[][])[[4, 1, -1], [0, 1, 3], [1, -1, -1], [0, 0, -1], [0, 2, 2], [5, -1, -1], [0, int.MaxValue, -1], [-2, -1, -1], [0, int.MinValue, -1], [-1, -1, 0], [0, -1, 3]])
        {
            rig.Run(Feed.Verify(0, tree, nodes));
            string message = Assert.Throws<ArgumentException>(() => backend.Commit(rig.State, rig.Step, row)).Message;
            using DeviceTensor accepted = backend.Upload<int>(row, 1, 3);
            backend.Commit(rig.State, rig.Step, accepted);
            Assert.Equal(message, Assert.Throws<ArgumentException>(() => rig.State.Length(0)).Message);
            Assert.Equal(0, rig.State.Length(0));
        }
    }

    [Theory, MemberData(nameof(Devices))]
    public void Whatever_reads_the_state_first_reports_it_once_and_does_nothing(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        var random = new Random(10);
        Feed feed = Feed.Verify(0, TokenTree.Path(2), Tokens.Random(random, Specs[0], 2)), one = Feed.Advance(1, Tokens.Random(random, Specs[0], 1));
        rig.Run(Feed.Advance(0, Tokens.Random(random, Specs[0], 3)), one);
        byte[] saved = rig.Snapshot(0);
        using DeviceTensor accepted = backend.Upload<int>([-1], 1, 1);
        var next = new Step();
        AttentionState state = rig.State;
        Action[] readings =
        [
            () => state.Length(0), () => state.Bytes(0), () => state.Begin(next), () => state.Fork(1, 2), () => state.Reset(3), () => state.Rewind(0, 1),
            () => rig.Snapshot(1), () => rig.Restore(3, saved), () => backend.Commit(state, next, [-1]), () => backend.Commit(state, next, accepted),
        ];
        for (int i = 0; i < readings.Length; i++)
        {
            state.Reset(0);
            rig.Restore(0, saved);
            next.Clear();
            next.Advance(4, 1);
            rig.Run(feed);
            rig.CommitOnDevice([1]);
            rig.Step.Clear();                               // its entries are no longer there when the outcome is read
            Assert.Equal("accepted: entry 0: node 1 is not a child of -1 in its tree of 2 nodes (Parameter 'accepted')", Assert.Throws<ArgumentException>(readings[i]).Message);
            Assert.Equal(3, state.Length(0));
            Assert.Equal(saved, rig.Snapshot(0));
        }

        Assert.Equal(0, state.Length(4));
        state.Begin(next);                                  // it has not begun before
        state.Abandon(next);
    }

    [Theory, MemberData(nameof(Devices))]
    public void A_commit_is_as_many_launches_for_many_entries_as_for_one(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs, slots: 8);
        var random = new Random(11);
        long one = Launches(1), many = Launches(8);
        Assert.InRange(one, 1 + Specs.Length, 1 + 4 * Specs.Length);
        Assert.Equal(one, many);

        long Launches(int entries)
        {
            for (int slot = 0; slot < entries; slot++)
            {
                rig.State.Reset(slot);
                rig.Run(Feed.Advance(slot, Tokens.Random(random, Specs[0], Group - 1)));
            }

            rig.Run([.. Enumerable.Range(0, entries).Select(slot => Feed.Verify(slot, TokenTree.Path(3), Tokens.Random(random, Specs[0], 3)))]);
            long before = backend.Launches;
            rig.CommitOnDevice([.. Enumerable.Repeat<int[]>([0, 1], entries)]);
            return backend.Launches - before;
        }
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void A_commit_on_the_device_waits_for_nothing(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        using DeviceTensor accepted = backend.Upload<int>([0, -1], 1, 2);
        VerifyPath();
        backend.Commit(rig.State, rig.Step, accepted);      // the first time kernels are compiled
        VerifyPath();
        long waits = backend.Waits;
        backend.Commit(rig.State, rig.Step, accepted);
        Assert.Equal(waits, backend.Waits);
        Assert.Equal(2, rig.State.Length(0));
        Assert.Equal(waits + 1, backend.Waits);

        void VerifyPath() => rig.Run(Feed.Verify(0, TokenTree.Path(2), Tokens.Random(new Random(12), Specs[0], 2)));
    }

    // The other step's tree is larger: what waits to be committed moves to more room as it begins.
    [Theory, MemberData(nameof(Names))]
    public void A_commit_between_the_layers_of_another_step_changes_neither(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        var random = new Random(14);
        Feed[] pasts = [Feed.Advance(0, Tokens.Random(random, Specs[0], Group - 2)), Feed.Advance(1, Tokens.Random(random, Specs[0], Group - 3)), Feed.Advance(2, Tokens.Random(random, Specs[0], 5))];
        Feed first = Feed.Verify(0, TokenTree.FromParents([-1, 0, 1, 0, 3, 4]), Tokens.Random(random, Specs[0], 6)), tree = Feed.Verify(1, Tree, Tokens.Random(random, Specs[0], Tree.Count));
        Feed moving = Feed.Advance(2, Tokens.Random(random, Specs[0], 20)), after = Feed.Advance(0, Tokens.Random(random, Specs[0], 3));
        int[] path = [0, 3, 4];

        using var one = new AttentionRig(backend, Specs);
        one.Run(pasts);
        one.Run(first);
        one.CommitOnDevice(path);
        double[][] want = one.Run(tree, moving);
        one.CommitOnDevice(PathTo(40), []);

        foreach (bool onDevice in (bool[])[true, false])
        {
            using var both = new AttentionRig(backend, Specs);
            both.Run(pasts);
            both.Run(first);
            Step verified = both.Step, under = new();
            using DeviceTensor accepted = backend.Upload<int>([.. path, -1], 1, 4);
            under.Add(tree.Slot, tree.Tree, tree.Moves);
            under.Add(moving.Slot, moving.Tree, moving.Moves);
            both.State.Begin(under);
            both.Step = under;
            List<double> got = [.. both.Attend(0, tree, moving)];
            if (onDevice) backend.Commit(both.State, verified, accepted);
            else backend.Commit(both.State, verified, [.. path, -1]);
            for (int layer = 1; layer < Specs.Length; layer++) got.AddRange(both.Attend(layer, tree, moving));
            both.State.Complete(under);
            both.CommitOnDevice(PathTo(40), []);

            int row = Specs[0].QueryHeads * Specs[0].ValueDim, all = (tree.Tree.Count + 20) * row, ofTree = tree.Tree.Count * row;
            for (int layer = 0; layer < Specs.Length; layer++)
            {
                double[] sequential = [.. want[0].AsSpan(layer * ofTree, ofTree), .. want[1].AsSpan(layer * 20 * row, 20 * row)];
                Close.SameBits(sequential, got.GetRange(layer * all, all).ToArray(), $"{name}: layer {layer}, on the device {onDevice}");
            }

            for (int slot = 0; slot < 3; slot++) Assert.Equal(one.Snapshot(slot), both.Snapshot(slot));
            one.State.Fork(0, 4);
            one.State.Fork(0, 3);
            Close.SameBits(one.Run(after with { Slot = 3 })[0], both.Run(after)[0], $"{name}: after both");
            one.State.Fork(4, 0);
        }
    }

    [Theory, MemberData(nameof(Names))]
    public void Rows_of_accepted_paths_may_lie_apart(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        var random = new Random(15);
        TokenTree tree = TokenTree.FromParents([-1, 0, 0, 2]);
        Feed[] feeds = [.. Enumerable.Range(0, 3).Select(slot => Feed.Verify(slot, tree, Tokens.Random(random, Specs[0], 4)))];
        using DeviceTensor wide = backend.Upload<int>([7, 7, 0, 2, 3, 7, 7, 7, 0, 1, -1, 7, 7, 7, -1, -1, -1, 7], 3, 6);
        rig.Run(feeds);
        backend.Commit(rig.State, rig.Step, wide.Slice(1, 2, 3));
        Assert.Equal([3, 2, 0], Enumerable.Range(0, 3).Select(rig.State.Length));
        byte[][] got = [.. Enumerable.Range(0, 3).Select(rig.Snapshot)];
        for (int slot = 0; slot < 3; slot++) rig.State.Reset(slot);
        rig.Run(feeds);
        rig.Commit([[0, 2, 3], [0, 1], []]);
        for (int slot = 0; slot < 3; slot++) Assert.Equal(rig.Snapshot(slot), got[slot]);
    }

    [Theory, MemberData(nameof(Devices))]
    public void A_state_and_its_backend_may_be_disposed_with_a_commit_unread(string name)
    {
        IlgpuBackend backend = IlgpuDevices.Open(name);
        var random = new Random(16);
        foreach (bool first in (bool[])[true, false])
        {
            using var rig = new AttentionRig(backend, Specs);
            rig.Run(Feed.Verify(0, TokenTree.Path(2), Tokens.Random(random, Specs[0], 2)));
            rig.CommitOnDevice([1]);                        // no path: nobody hears of it
            if (first) rig.State.Dispose();
            else backend.Dispose();
            Assert.Throws<ObjectDisposedException>(() => rig.State.Length(0));
            if (first) Assert.True(IlgpuDevices.Works(backend));
            rig.State.Dispose();
        }

        using IlgpuBackend next = IlgpuDevices.Open(name);
        Assert.True(IlgpuDevices.Works(next));
    }

    [Theory, MemberData(nameof(Devices))]
    public void What_became_of_a_commit_is_not_known_where_the_backend_has_failed(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        rig.Run(Feed.Verify(0, TokenTree.Path(2), Tokens.Random(new Random(17), Specs[0], 2)), Feed.Advance(1, Tokens.Random(new Random(18), Specs[0], 3)));
        rig.CommitOnDevice([0], []);
        Exception fault;
        using (backend.Enter("Add")) fault = backend.Failed(new CLException(CLError.CL_OUT_OF_RESOURCES));
        for (int i = 0; i < 2; i++) Assert.Same(fault, Assert.Throws<BackendFaultedException>(() => rig.State.Length(0)).InnerException);
        Assert.Same(fault, Assert.Throws<BackendFaultedException>(() => rig.Snapshot(0)).InnerException);
        Assert.False(rig.State.IsBroken(0));
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void Nor_does_acceptance_before_it(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using var rig = new AttentionRig(backend, Specs);
        using DeviceTensor tokens = backend.Upload<int>([5, 6, 7, 6], 4), chosen = backend.Upload<int>([6, 7, 8, 9], 4), logits = backend.Upload<float>(new Random(13).Floats(4 * 10), 4, 10);
        using DeviceTensor accepted = backend.Allocate(ElementType.Int32, 1, 3), next = backend.Allocate(ElementType.Int32, 1);
        var random = new Random(13);
        VerifyTree();
        Accept();                                           // the first time kernels are compiled
        Assert.Equal(3, rig.State.Length(0));
        VerifyTree();
        long waits = backend.Waits;
        Accept();
        Assert.Equal(waits, backend.Waits);
        Assert.Equal([0, 1, 2], backend.Download<int>(accepted));
        Assert.Equal([8], backend.Download<int>(next));
        Assert.Equal(6, rig.State.Length(0));

        void VerifyTree() => rig.Run(Feed.Verify(0, TokenTree.FromParents([-1, 0, 1, 0]), Tokens.Random(random, Specs[0], 4)));

        void Accept()
        {
            backend.AcceptTypical(rig.Step, tokens, logits, 0.7f, 0.1f, 0.3f, accepted);
            backend.AcceptTypical(rig.Step, tokens, logits, 0, 0.1f, 0.3f, accepted);
            backend.Accept(rig.Step, tokens, chosen, accepted, next);
            backend.Commit(rig.State, rig.Step, accepted);
        }
    }

    private static int[] PathTo(int node)
    {
        if (node < 0) return [];
        var path = new int[Tree.Depth(node) + 1];
        Tree.PathTo(node, path);
        return path;
    }
}
