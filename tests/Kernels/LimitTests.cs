using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The largest shapes, trees and numbers of slots: exact there too, and close to the oracle.</summary>
public class LimitTests
{
    public static TheoryData<string> Names => [.. BackendsUnderTest.LosslessNames.Where(name => name != "oracle")];

    [Theory, MemberData(nameof(Names))]
    public void The_widest_heads(string name)
    {
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(2, 1, 256, 16, convTaps: 33, valueDim: 4096), AttentionSpec.Augmented(1, 1, 1, 19, valueDim: 4095), AttentionSpec.Softmax(2, 1, 256, 4096)])
            Exact(name, spec, past: 21, TokenTree.FromParents([.. Enumerable.Range(-1, 14), 5, 14, 15, -1]), [13, 16, 17]);
    }

    [Theory, MemberData(nameof(Names))]
    public void A_path_of_1024_nodes_over_64_groups(string name)
    {
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(3, 1, 4, 16, convTaps: 5, valueDim: 3), AttentionSpec.Softmax(3, 1, 4, 3)])
            Exact(name, spec, past: 9, TokenTree.Path(TokenTree.MaxNodes), [1023, 700], withOracle: false);
    }

    // Backends weigh 64 of a group's keys at a time: before, at and behind the cuts, a path of one token, of a few, of many.
    [Theory, MemberData(nameof(Names))]
    public void A_group_of_several_pieces(string name)
    {
        foreach ((int group, int past) in ((int, int)[])[(150, 65), (150, 128), (150, 150 + 139), (256, 64), (256, 129), (256, 192), (256, 193), (256, 256 + 250)])
        {
            foreach (LocalKind local in (LocalKind[])[LocalKind.Relu2, LocalKind.Yoso8])
                Exact(name, AttentionSpec.Augmented(2, 1, 8, group, convTaps: 3, valueDim: 20) with { Local = local }, past, TokenTree.FromParents([.. Enumerable.Range(-1, 12), 3, 12, -1]), [11, 13, 14]);
        }
    }

    // Backends cut long pasts into parts of 1,024 positions: before, at and behind a cut, and a tree across one.
    [Theory, MemberData(nameof(Names))]
    public void A_softmax_past_of_several_parts(string name)
    {
        foreach (int past in (int[])[1000, 1023, 1024, 2040])
            Exact(name, AttentionSpec.Softmax(4, 2, 8, 5), past, TokenTree.FromParents([.. Enumerable.Range(-1, 30), 5, 30, 31]), [29, 32]);
    }

    [Theory, MemberData(nameof(Names))]
    public void A_tree_of_1024_nodes_whose_every_branch_crosses(string name)
    {
        // A trunk of 20 nodes; from each of them, in turn, branches that are longer than a group.
        int[] parents = [.. Enumerable.Range(-1, 20), .. Enumerable.Range(20, 1004).Select(i => (i - 20) % 40 == 0 ? (i - 20) / 40 % 20 : i - 1)];
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(2, 2, 5, 16, convTaps: 20, valueDim: 7), AttentionSpec.FlashLocal(2, 1, 5, 16), AttentionSpec.Softmax(2, 2, 5, 7)])
            Exact(name, spec, past: 30, TokenTree.FromParents(parents), [1023, 59, 500], withOracle: false);
    }

    [Theory, MemberData(nameof(Names))]
    public void A_group_longer_than_the_text_and_a_window_longer_than_a_group(string name)
    {
        Exact(name, AttentionSpec.Augmented(1, 1, 3, 1 << 20, convTaps: 3), past: 40, TokenTree.FromParents([-1, 0, 0]), [2]);
        Exact(name, AttentionSpec.Augmented(1, 1, 3, 16, convTaps: 100), past: 90, TokenTree.FromParents([-1, 0, 0, 2, -1]), [3, 4]);
    }

    [Theory, MemberData(nameof(Names))]
    public void Fifty_slots_in_one_step(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        AttentionSpec spec = AttentionSpec.Augmented(2, 1, 5, 16, convTaps: 3);
        using var rig = new AttentionRig(backend, [spec, AttentionSpec.Softmax(2, 1, 5)], slots: 101);
        var random = new Random(4);
        Feed[] feeds = [.. Enumerable.Range(0, 50).Select(slot =>
        {
            TokenTree tree = random.Tree(random.Next(1, 30));
            return slot % 2 == 0 ? Feed.Verify(2 * slot, tree, Tokens.Random(random, spec, tree.Count)) : Feed.Advance(2 * slot, Tokens.Random(random, spec, random.Next(0, 40)));
        })];
        foreach (Feed feed in feeds)
        {
            rig.Run(Feed.Advance(feed.Slot, Tokens.Random(random, spec, random.Next(0, 40))));
            rig.State.Fork(feed.Slot, feed.Slot + 1);
        }

        double[][] together = rig.Run(feeds);
        for (int i = 0; i < feeds.Length; i++)
        {
            Close.SameBits(rig.Run(feeds[i] with { Slot = feeds[i].Slot + 1 })[0], together[i], $"slot {feeds[i].Slot}");
            Assert.Equal(rig.Snapshot(feeds[i].Slot + 1), rig.Snapshot(feeds[i].Slot));
        }
    }

    /// <summary>Nodes of a tree equal an advance along their paths, commits too; and the past and the tree are the oracle's.</summary>
    private static void Exact(string name, AttentionSpec spec, int past, TokenTree tree, int[] compared, bool withOracle = true)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using var rig = new AttentionRig(backend, [spec]);
        var random = new Random(11);
        Tokens before = Tokens.Random(random, spec, past), nodes = Tokens.Random(random, spec, tree.Count);
        double[] begun = rig.Run(Feed.Advance(0, before))[0];
        double[] verified = rig.Run(Feed.Verify(0, tree, nodes))[0];
        int width = spec.QueryHeads * spec.ValueDim;
        foreach (int node in compared)
        {
            var path = new int[tree.Depth(node) + 1];
            tree.PathTo(node, path);
            rig.State.Fork(0, 1);
            double[] advanced = rig.Run(Feed.Advance(1, nodes.At(path)))[0];
            for (int i = 0; i < path.Length; i++) Close.SameBits(advanced.AsSpan(i * width, width), verified.AsSpan(path[i] * width, width), $"{spec}: node {path[i]}");
            rig.State.Fork(0, 2);
            rig.Run(Feed.Verify(2, tree, nodes));
            rig.Commit(0, path);
            Assert.Equal(rig.Snapshot(1), rig.Snapshot(2));
        }

        if (!withOracle) return;
        using var oracle = new OracleBackend();
        using var want = new AttentionRig(oracle, [spec]);
        Close.To(want.Run(Feed.Advance(0, before))[0], begun, Close.Attention, $"{name}: {spec}, before the tree");
        Close.To(want.Run(Feed.Verify(0, tree, nodes))[0], verified, Close.Attention, $"{name}: {spec}");
    }
}
