using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Whatever happened to a slot, its state is that of its history: forks, commits, rewinds, restores and steps that were given up, in any order.</summary>
public class HistoryTests
{
    private const int Slots = 5, Turns = 60, Capacity = 300, Known = 400, QuickSeeds = 6, FullSeeds = 60;

    public static TheoryData<string, int> Quick => new(from name in BackendsUnderTest.LosslessNames from seed in Enumerable.Range(0, QuickSeeds) select (name, seed));

    public static TheoryData<string> All => [.. BackendsUnderTest.Lossless];

    [Theory, MemberData(nameof(Quick))]
    public void A_slot_is_its_history(string name, int seed) => new Life(name, seed).Check();

    [Theory, MemberData(nameof(All)), Trait("tier", "full")]
    public void A_slot_is_its_history_for_many_seeds(string name)
    {
        for (int seed = 1000; seed < 1000 + FullSeeds; seed++) new Life(name, seed).Check();
    }

    /// <summary>Some slots, and for each the tokens that it should hold.</summary>
    private sealed class Life
    {
        private readonly string _name;
        private readonly Random _random;
        private readonly AttentionSpec[] _specs;
        private readonly Tokens _known;
        private readonly List<int>[] _histories = [.. Enumerable.Range(0, Slots).Select(_ => new List<int>())];
        private readonly List<string> _turns = [];

        public Life(string name, int seed)
        {
            _name = name;
            _random = new Random(seed);
            AttentionSpec spec = AttentionSpec.Augmented(2, 1, 5, _random.Pick(16, 19), convTaps: _random.Pick(1, 3, 40), valueDim: 3);
            AttentionSpec growing = AttentionSpec.Softmax(2, 1, 5, 3);
            _specs = _random.Pick<AttentionSpec[]>([spec], [growing], [spec, growing], [growing, growing]);
            _known = Tokens.Random(_random, spec, Known);
        }

        public void Check()
        {
            using KernelBackend backend = BackendsUnderTest.Open(_name);
            using var rig = new AttentionRig(backend, _specs, slots: Slots, capacity: Capacity);
            using var clean = new AttentionRig(backend, _specs, slots: 1, capacity: Capacity);
            for (int turn = 0; turn < Turns; turn++) Turn(rig);
            for (int slot = 0; slot < Slots; slot++)
            {
                clean.State.Reset(0);
                clean.Run(Feed.Advance(0, _known.At([.. _histories[slot]])));
                Assert.Equal(_histories[slot].Count, rig.State.Length(slot));
                Assert.True(clean.Snapshot(0).AsSpan().SequenceEqual(rig.Snapshot(slot)), $"slot {slot} after {string.Join("; ", _turns)}");
            }
        }

        private void Turn(AttentionRig rig)
        {
            int slot = _random.Next(Slots), other = _random.Next(Slots);
            switch (_random.Next(10))
            {
                case 0:
                    _turns.Add($"fork {slot} to {other}");
                    rig.State.Fork(slot, other);
                    _histories[other] = [.. _histories[slot]];
                    break;
                case 1:
                    _turns.Add($"{other} restored from {slot}");
                    rig.Restore(other, rig.Snapshot(slot));
                    _histories[other] = [.. _histories[slot]];
                    break;
                case 2:
                    int length = _histories[slot].Count;
                    int back = _random.Next(0, _specs.Min(spec => spec.GroupSize > 0 ? length % spec.GroupSize : length) + 1);
                    _turns.Add($"{slot} back by {back}");
                    rig.State.Rewind(slot, back);
                    _histories[slot].RemoveRange(length - back, back);
                    break;
                case 3:
                    _turns.Add($"{slot} given up");
                    GiveUp(rig, slot);
                    break;
                default:
                    Step(rig);
                    break;
            }
        }

        /// <summary>Some slots advance, others verify a tree, of which a path is committed or nothing.</summary>
        private void Step(AttentionRig rig)
        {
            int[] slots = [.. Enumerable.Range(0, Slots).Where(_ => _random.Chance(0.5))];
            _random.Shuffle(slots);
            List<Feed> feeds = [];
            List<int[]> ids = [];
            foreach (int slot in slots)
            {
                TokenTree tree = _random.Chance(0.5) ? TokenTree.Path(_random.Next(0, 40)) : _random.Tree(_random.Next(1, 60));
                if (_histories[slot].Count + tree.Levels > Capacity)
                {
                    rig.State.Reset(slot);
                    _histories[slot].Clear();
                }

                ids.Add([.. Enumerable.Range(0, tree.Count).Select(_ => _random.Next(Known))]);
                feeds.Add(new Feed(slot, tree, tree.IsPath && _random.Chance(0.7), _known.At(ids[^1])));
            }

            if (feeds.Count == 0) return;
            rig.Run([.. feeds]);
            bool commits = _random.Chance(0.8);
            _turns.Add(string.Join(", ", feeds.Select(feed => $"{feed.Slot} {(feed.Moves ? "advances" : "verifies")} {feed.Tree.Count}")) + (commits ? " and commits" : ""));
            int[][] paths = [.. feeds.Select(feed => feed.Moves || feed.Tree.Count == 0 || _random.Chance(0.2) ? [] : PathTo(feed.Tree, _random.Next(feed.Tree.Count)))];
            if (commits) rig.Commit(paths);
            for (int i = 0; i < feeds.Count; i++)
            {
                if (feeds[i].Moves) _histories[feeds[i].Slot].AddRange(ids[i]);
                else if (commits) _histories[feeds[i].Slot].AddRange(paths[i].Select(node => ids[i][node]));
            }
        }

        /// <summary>A step that ends after its first layer; where that was not the last one the slot is broken, and begins anew.</summary>
        private void GiveUp(AttentionRig rig, int slot)
        {
            int count = Math.Min(20, Capacity - _histories[slot].Count);
            Tokens tokens = _known.Range(0, count);
            rig.Step.Clear();
            rig.Step.Advance(slot, count);
            rig.Attend(0, Feed.Advance(slot, tokens));
            Assert.Equal(count > 0, rig.State.IsBroken(slot));
            rig.State.Reset(slot);
            _histories[slot].Clear();
        }

        private static int[] PathTo(TokenTree tree, int node)
        {
            var path = new int[tree.Depth(node) + 1];
            tree.PathTo(node, path);
            return path;
        }
    }
}
