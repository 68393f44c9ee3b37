using System.Diagnostics;
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
        using DeviceTensor accepted = backend.Upload<int>([0, -1], 1, 2), number = backend.Upload<int>([1], 1);
        foreach (bool warm in (bool[])[false, true])        // the first time kernels are compiled
        {
            rig.Run(Feed.Verify(0, TokenTree.Path(2), Tokens.Random(new Random(12), Specs[0], 2)));
            SlowKernel.Launch(backend, ((IlgpuBuffer)number.Buffer).View.Cast<int>());
            long start = Stopwatch.GetTimestamp();
            backend.Commit(rig.State, rig.Step, accepted);
            TimeSpan commit = Stopwatch.GetElapsedTime(start);
            int length = rig.State.Length(0);
            TimeSpan reading = Stopwatch.GetElapsedTime(start) - commit;
            Assert.Equal(warm ? 2 : 1, length);
            if (warm) Assert.True(commit < reading, $"the commit took {commit}, the reading after it {reading}");
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
