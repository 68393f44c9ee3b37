using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>A token's result depends on its path alone: every property bit for bit, on every backend that says so.</summary>
public class ExactnessTests
{
    private const int QuickSeeds = 8, FullSeeds = 60;

    public static TheoryData<string, string, int> Quick => new(
        from name in BackendsUnderTest.LosslessNames from attention in Attending from seed in Enumerable.Range(0, BackendsUnderTest.IsForDebugging(name) ? 1 : QuickSeeds) select (name, attention, seed));

    /// <summary>Every backend and variant.</summary>
    public static TheoryData<string, string> Everywhere => new(
        from name in BackendsUnderTest.Lossless where !BackendsUnderTest.IsForDebugging(name) from attention in Attending select (name, attention));

    private static string[] Attending => [.. Attentions.All.Select(attention => attention.Name)];

    [Theory, MemberData(nameof(Quick))]
    public void Advance_does_not_depend_on_how_a_path_is_cut(string name, string attention, int seed) => Cutting(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void Verify_gives_every_node_what_advance_gives_its_path(string name, string attention, int seed) => Verifying(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void Commit_after_verify_is_advance(string name, string attention, int seed) => Committing(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void Fork_rewind_snapshot_and_restore_change_nothing(string name, string attention, int seed) => Copying(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void The_other_entries_of_a_step_change_nothing(string name, string attention, int seed) => Batching(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void A_branch_of_nan_or_infinity_leaves_its_siblings_alone(string name, string attention, int seed) => Poisoning(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Quick))]
    public void Tokens_of_a_chunk_do_not_see_those_behind_them(string name, string attention, int seed) => Foreseeing(name, new Scenario(attention, seed));

    [Theory, MemberData(nameof(Everywhere)), Trait("tier", "full")]
    public void All_of_it_for_many_seeds_and_larger_trees(string name, string attention)
    {
        for (int seed = 1000; seed < 1000 + FullSeeds; seed++)
        {
            Scenario Draw() => new(attention, seed, most: seed % 20 == 0 ? 400 : 90);
            Cutting(name, Draw());
            Verifying(name, Draw());
            Committing(name, Draw());
            Copying(name, Draw());
            Batching(name, Draw());
            Poisoning(name, Draw());
            Foreseeing(name, Draw());
        }
    }

    [Theory(SkipTestWithoutData = true), MemberData(nameof(Everywhere))]
    public void Trees_are_exact_at_every_place_in_a_block(string name, string attention)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        const int Group = 16, Deep = 40;                    // two boundaries lie on a path of 40, wherever it begins
        var scenario = new Scenario(attention, 5, groupSize: Group);
        using AttentionRig rig = scenario.Rig(backend);
        for (int past = 0; past <= 2 * Group + 1; past++)
        {
            int[] parents = [.. Enumerable.Range(-1, Deep), 3, Deep, Deep + 1, -1, 20, 20, Deep - 1];
            TokenTree tree = TokenTree.FromParents(parents);
            Tokens nodes = scenario.More(tree.Count);
            double[] verified = rig.Run(Feed.Verify(0, tree, nodes))[0];
            foreach (int node in (int[])[tree.Count - 1, tree.Count - 2, Deep + 2, Deep + 3])
            {
                var path = new int[tree.Depth(node) + 1];
                tree.PathTo(node, path);
                rig.State.Fork(0, 1);
                double[] advanced = rig.Run(Feed.Advance(1, nodes.At(path)))[0];
                Close.SameBits(advanced, scenario.Rows(verified, tree.Count, path), $"{scenario}: after {past}, path to {node}");
                rig.State.Fork(0, 2);
                rig.Run(Feed.Verify(2, tree, nodes));
                rig.Commit(0, path);
                Assert.Equal(rig.Snapshot(1), rig.Snapshot(2));
            }

            rig.Run(Feed.Advance(0, scenario.More(1)));
        }
    }

    private static void Cutting(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        Tokens all = scenario.Past.Then(scenario.Next);
        double[] whole = rig.Run(Feed.Advance(0, all))[0];
        int[][] cuts = [[.. Enumerable.Repeat(1, all.Count)], scenario.Random.Cut(all.Count, 7), scenario.Random.Cut(all.Count, 100)];
        for (int i = 0; i < cuts.Length; i++)
        {
            double[][] pieces = rig.Advance(1 + i, all, cuts[i]);
            int at = 0;
            foreach ((double[] piece, int size) in pieces.Zip(cuts[i]))
            {
                Close.SameBits(scenario.Rows(whole, all.Count, [.. Enumerable.Range(at, size)]), piece, $"{scenario}: tokens {at} to {at + size}");
                at += size;
            }

            Assert.Equal(rig.Snapshot(0), rig.Snapshot(1 + i));
        }
    }

    private static void Verifying(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        rig.Run(Feed.Advance(0, scenario.Past));
        byte[] before = rig.Snapshot(0);
        double[] verified = rig.Run(Feed.Verify(0, scenario.Tree, scenario.Nodes))[0];
        Assert.Equal(before, rig.Snapshot(0));
        foreach (int[] path in scenario.Paths(5))
        {
            rig.State.Fork(0, 1);
            double[][] pieces = rig.Advance(1, scenario.Nodes.At(path), scenario.Random.Cut(path.Length, scenario.Random.Pick(1, 5, path.Length)));
            int at = 0;
            foreach (double[] piece in pieces)
            {
                int size = piece.Length / scenario.Rows(verified, scenario.Tree.Count, 0).Length;
                Close.SameBits(scenario.Rows(verified, scenario.Tree.Count, path.AsSpan(at, size)), piece, $"{scenario}: path to {path[^1]}");
                at += size;
            }
        }
    }

    private static void Committing(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        rig.Run(Feed.Advance(0, scenario.Past));
        foreach (int[] path in scenario.Paths(3).Append([]))
        {
            rig.State.Fork(0, 1);
            rig.State.Fork(0, 2);
            if (path.Length > 0) rig.Run(Feed.Advance(1, scenario.Nodes.At(path)));
            rig.Run(Feed.Verify(2, scenario.Tree, scenario.Nodes));
            rig.Commit(0, path);
            Assert.Equal(scenario.Past.Count + path.Length, rig.State.Length(2));
            Assert.Equal(rig.Snapshot(1), rig.Snapshot(2));
            double[][] next = rig.Run(Feed.Advance(1, scenario.Next), Feed.Advance(2, scenario.Next));
            Close.SameBits(next[0], next[1], $"{scenario}: after the path to {path.LastOrDefault(-1)}");
            Assert.Equal(rig.Snapshot(1), rig.Snapshot(2));
        }
    }

    private static void Copying(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        using AttentionRig other = scenario.Rig(backend);
        rig.Run(Feed.Advance(0, scenario.Past));
        byte[] before = rig.Snapshot(0);
        rig.State.Fork(0, 1);
        rig.Restore(2, before);
        other.Restore(3, before);
        double[] next = rig.Run(Feed.Advance(0, scenario.Next))[0];
        byte[] after = rig.Snapshot(0);
        Assert.Equal(before, rig.Snapshot(1));
        Same(rig, 1, "forked");
        Same(rig, 2, "restored");
        Same(other, 3, "restored elsewhere");

        // Back to the last block boundary of the layer that has the nearest one, and on again.
        int most = scenario.Specs.Min(spec => spec.Attention == "softmax" ? int.MaxValue : (scenario.Past.Count + scenario.Next.Count) % spec.BlockLength);
        int back = scenario.Random.Next(0, Math.Min(most, scenario.Next.Count) + 1);
        rig.State.Rewind(0, back);
        double[] again = rig.Run(Feed.Advance(0, scenario.Next.Range(scenario.Next.Count - back, scenario.Next.Count)))[0];
        Close.SameBits(scenario.Rows(next, scenario.Next.Count, [.. Enumerable.Range(scenario.Next.Count - back, back)]), again, $"{scenario}: rewound by {back}");
        Assert.Equal(after, rig.Snapshot(0));

        void Same(AttentionRig where, int slot, string what)
        {
            Close.SameBits(next, where.Run(Feed.Advance(slot, scenario.Next))[0], $"{scenario}: {what}");
            Assert.Equal(after, where.Snapshot(slot));
        }
    }

    private static void Batching(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        using AttentionRig alone = scenario.Rig(backend);
        Random random = scenario.Random;
        TokenTree small = random.Tree(random.Next(1, 12));
        Feed[] feeds =
        [
            Feed.Verify(0, scenario.Tree, scenario.Nodes),
            Feed.Advance(1, scenario.More(random.Next(2, 100))),
            Feed.Advance(2, scenario.More(1)),
            Feed.Verify(3, small, scenario.More(small.Count)),
            Feed.Advance(4, scenario.More(0)),
            Feed.Verify(5, TokenTree.Path(3), scenario.More(3)),
        ];
        int[][] paths = [scenario.PathTo(scenario.Tree.Count - 1), [], [], [0], [], [0, 1]];
        Tokens[] pasts = [.. feeds.Select(feed => feed.Slot == 0 ? scenario.Past : scenario.More(random.Next(0, 60)))];
        foreach (Feed feed in feeds)
        {
            rig.Run(Feed.Advance(feed.Slot, pasts[feed.Slot]));
            alone.Run(Feed.Advance(feed.Slot, pasts[feed.Slot]));
        }

        random.Shuffle(feeds);
        double[][] together = rig.Run(feeds);
        rig.Commit([.. feeds.Select(feed => paths[feed.Slot])]);
        for (int i = 0; i < feeds.Length; i++)
        {
            Close.SameBits(alone.Run(feeds[i])[0], together[i], $"{scenario}: slot {feeds[i].Slot}");
            if (!feeds[i].Moves) alone.Commit(0, paths[feeds[i].Slot]);
            Assert.Equal(alone.Snapshot(feeds[i].Slot), rig.Snapshot(feeds[i].Slot));
        }
    }

    private static void Poisoning(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        rig.Run(Feed.Advance(0, scenario.Past));
        double[] clean = rig.Run(Feed.Verify(0, scenario.Tree, scenario.Nodes))[0];
        foreach (float poison in (float[])[float.NaN, float.PositiveInfinity])
        {
            int bad = scenario.Random.Next(scenario.Tree.Count);
            double[] output = rig.Run(Feed.Verify(0, scenario.Tree, scenario.Nodes.With(bad, poison)))[0];
            int[] others = [.. Enumerable.Range(0, scenario.Tree.Count).Where(node => !scenario.Tree.IsOnPath(bad, node))];
            Close.SameBits(scenario.Rows(clean, scenario.Tree.Count, others), scenario.Rows(output, scenario.Tree.Count, others), $"{scenario}: {poison} at {bad}");
        }
    }

    private static void Foreseeing(string name, Scenario scenario)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = scenario.Rig(backend);
        Tokens chunk = scenario.More(70);
        rig.Run(Feed.Advance(0, scenario.Past));
        double[] clean = rig.Run(Feed.Advance(0, chunk))[0];
        foreach ((int slot, float poison) in new[] { (1, float.NaN), (2, float.PositiveInfinity) })
        {
            int bad = scenario.Random.Next(chunk.Count);
            rig.Run(Feed.Advance(slot, scenario.Past));
            double[] output = rig.Run(Feed.Advance(slot, chunk.With(bad, poison)))[0];
            int[] before = [.. Enumerable.Range(0, bad)];
            Close.SameBits(scenario.Rows(clean, chunk.Count, before), scenario.Rows(output, chunk.Count, before), $"{scenario}: {poison} at {bad}");
        }
    }
}
