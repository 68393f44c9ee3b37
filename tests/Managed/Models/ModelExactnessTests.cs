using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Models;

/// <summary>Whole models with odd widths, bit for bit: what a token gets depends on its path alone.</summary>
public class ModelExactnessTests
{
    private const int Rows = 70;

    /// <summary>Each model and each form of weights once.</summary>
    public static TheoryData<string, string, bool, WeightForm, ElementType> Few => new()
    {
        { "cpu", "llama", true, WeightForm.Float32, ElementType.Float32 },
        { "cpu", "llama", false, WeightForm.InPlace, ElementType.BFloat16 },
        { "cpu", "gpt2", true, WeightForm.BFloat16, ElementType.BFloat16 },
        { "cpu", "gpt2", false, WeightForm.Float16, ElementType.Float32 },
        { "cpu", "gpt2", true, WeightForm.Int8, ElementType.Float16 },
        { "cpu", "llama", true, WeightForm.Int4, ElementType.Float32 },
    };

    /// <summary>All of them; on the oracle and on variants of a backend the two ways in which a weight lies in memory.</summary>
    public static TheoryData<string, string, bool, WeightForm, ElementType> All => new(
        from name in BackendsUnderTest.Lossless
        from model in new[] { "llama", "gpt2" }
        from linear in new[] { false, true }
        from form in Enum.GetValues<WeightForm>()
        from stored in form == WeightForm.InPlace ? new[] { ElementType.BFloat16, ElementType.Float32, ElementType.Float16 } : [ElementType.Float32]
        where name == "cpu" || form == WeightForm.Float32 || (form, stored) == (WeightForm.InPlace, ElementType.BFloat16)
        select (name, model, linear, form, stored));

    [Theory, MemberData(nameof(Few))]
    public void One_pass_is_one_token_at_a_time(string name, string model, bool linear, WeightForm form, ElementType stored)
    {
        using var rig = new Rig(name, model, linear, form, stored);
        OnePass(rig, [1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, Rows]);
    }

    [Theory, MemberData(nameof(Few))]
    public void A_tree_is_each_of_its_paths(string name, string model, bool linear, WeightForm form, ElementType stored)
    {
        using var rig = new Rig(name, model, linear, form, stored);
        Trees(rig, rounds: 2, most: 30);
    }

    [Theory, MemberData(nameof(Few))]
    public void Sequences_of_a_batch_do_not_see_each_other(string name, string model, bool linear, WeightForm form, ElementType stored)
    {
        using var rig = new Rig(name, model, linear, form, stored);
        Batches(rig, rounds: 2);
    }

    [Fact]
    public void So_it_is_on_the_oracle()
    {
        using var rig = new Rig("oracle", "llama", linear: true, WeightForm.Float32, ElementType.Float32);
        OnePass(rig, [17, 35]);
        Trees(rig, rounds: 1, most: 12);
        Batches(rig, rounds: 1);
    }

    [Theory]
    [InlineData("llama", true, WeightForm.Float32)]
    [InlineData("gpt2", false, WeightForm.InPlace)]
    public void Threads_change_nothing(string model, bool linear, WeightForm form)
    {
        float[][] results = [.. new[] { "cpu/1 thread", "cpu", "cpu/3 threads" }.Select(name =>
        {
            using var rig = new Rig(name, model, linear, form, ElementType.Float32);
            int[] ids = rig.Ids(90);
            return (float[])[.. rig.Advance(0, ids.AsSpan(0, Rows)), .. rig.Advance(0, ids[Rows]), .. rig.Verify(0, new Random(5).Tree(19), ids.AsSpan(Rows + 1))];
        })];
        for (int i = 1; i < results.Length; i++) Same(results[0], results[i], "threads");
    }

    // Feed-forward layers take so many tokens in pieces.
    [Fact]
    public void A_long_prompt_in_one_pass_is_the_same_in_many()
    {
        using var rig = new Rig("cpu", "llama", linear: true, WeightForm.Float32, ElementType.Float32);
        int[] ids = rig.Ids(1110);
        float[] want = rig.Last(0, ids, 1110);
        Same(want, rig.Last(1, ids, 370), "three pieces");
        Assert.Equal(Snapshot(rig, 0), Snapshot(rig, 1));
    }

    [Fact]
    public void A_step_may_want_no_logits_and_feed_no_tokens()
    {
        using var rig = new Rig("cpu", "gpt2", linear: true, WeightForm.Float32, ElementType.Float32);
        Step step = rig.Step;
        step.Clear();
        step.Advance(0, 0);
        ForwardOutput nothing = rig.Model.Forward(rig.State, step, []);
        Assert.Equal((0, 0, 0), (nothing.Logits.Rows, nothing.Hidden.Rows, rig.State.Length(0)));
        step.Clear();
        step.Advance(0, 3, LogitRows.None);
        step.Advance(1, 0, LogitRows.All);
        step.Advance(2, 2);
        Assert.Equal(1, rig.Model.Forward(rig.State, step, [1, 2, 3, 4, 5]).Logits.Rows);
        Assert.Equal((3, 0, 2), (rig.State.Length(0), rig.State.Length(1), rig.State.Length(2)));
    }

    [Theory, MemberData(nameof(All)), Trait("tier", "full")]
    public void Every_model_form_and_number_of_rows(string name, string model, bool linear, WeightForm form, ElementType stored)
    {
        using var rig = new Rig(name, model, linear, form, stored);
        OnePass(rig, name == "oracle" ? [1, 17, 50] : [.. Enumerable.Range(1, Rows)]);
        Trees(rig, rounds: name == "oracle" ? 1 : 4, most: name == "oracle" ? 20 : Rows);
        Batches(rig, rounds: name == "oracle" ? 1 : 4);
    }

    private static void OnePass(Rig rig, int[] counts)
    {
        int most = counts.Max();
        int[] ids = rig.Ids(most);
        float[] want = rig.Advance(0, ids, [.. Enumerable.Repeat(1, most)]);
        foreach (int count in counts)
        {
            rig.State.Reset(1);
            Same(want.AsSpan(0, count * TinyCheckpoint.Vocabulary), rig.Advance(1, ids.AsSpan(0, count)), $"{count} rows");
        }

        rig.State.Reset(1);
        Same(want, rig.Advance(1, ids, rig.Random.Cut(most, 20)), "pieces");
        rig.State.Reset(0);
        rig.State.Reset(1);
    }

    private static void Trees(Rig rig, int rounds, int most)
    {
        for (int round = 0; round < rounds; round++)
        {
            int[] past = rig.Ids(rig.Random.Next(0, 40));
            TokenTree tree = rig.Random.Tree(rig.Random.Next(2, most + 1));
            int[] ids = rig.Ids(tree.Count);
            if (past.Length > 0) rig.Advance(0, past);
            float[] got = rig.Verify(0, tree, ids);
            byte[] before = Snapshot(rig, 0);
            int[] path = new int[tree.Levels];
            for (int node = 0; node < tree.Count; node++)
            {
                rig.State.Fork(0, 1);
                ReadOnlySpan<int> nodes = path.AsSpan(0, tree.PathTo(node, path));
                float[] want = rig.Advance(1, Chosen(ids, nodes));
                for (int i = 0; i < nodes.Length; i++) Same(Row(want, i), Row(got, nodes[i]), $"round {round}, node {nodes[i]} on the path to {node}");
            }

            Assert.Equal(before, Snapshot(rig, 0));
            Commit(rig, tree, ids, rig.Random.Next(tree.Count));
            rig.State.Reset(0);
        }
    }

    // A verified and committed path leaves the state that feeding it leaves.
    private static void Commit(Rig rig, TokenTree tree, int[] ids, int node)
    {
        int[] path = new int[tree.Depth(node) + 1];
        tree.PathTo(node, path);
        rig.State.Fork(0, 1);
        rig.Advance(1, Chosen(ids, path));
        rig.Verify(0, tree, ids);
        int[] accepted = [.. path, .. Enumerable.Repeat(-1, rig.Step.MaxDepth - path.Length)];
        rig.Model.Backend.Commit(rig.State, rig.Step, accepted);
        Assert.Equal(Snapshot(rig, 1), Snapshot(rig, 0));
    }

    // Slots 0 to 2 in one step: a chunk of a prompt, one token, a tree; then each by itself on slots 3 to 5.
    private static void Batches(Rig rig, int rounds)
    {
        var step = new Step();
        for (int round = 0; round < rounds; round++)
        {
            for (int slot = 0; slot < 3; slot++)
            {
                if (rig.Random.Next(0, 30) is var past && past > 0) rig.Advance(slot, rig.Ids(past));
                rig.State.Fork(slot, slot + 3);
            }

            TokenTree[] trees = [TokenTree.Path(rig.Random.Next(1, 40)), TokenTree.Path(1), rig.Random.Tree(rig.Random.Next(1, 20))];
            int[][] ids = [.. trees.Select(tree => rig.Ids(tree.Count))];
            step.Clear();
            foreach (int slot in rig.Random.Chance(0.5) ? new[] { 0, 1, 2 } : [2, 0, 1]) step.Add(slot, trees[slot], moves: slot < 2, LogitRows.All);
            int[] order = [.. Enumerable.Range(0, 3).Select(i => step[i].Slot)];
            float[] together = rig.Model.Backend.Download<float>(rig.Model.Forward(rig.State, step, [.. order.SelectMany(slot => ids[slot])]).Logits);
            for (int i = 0; i < 3; i++)
            {
                int slot = order[i];
                float[] alone = slot < 2 ? rig.Advance(slot + 3, ids[slot]) : rig.Verify(slot + 3, trees[slot], ids[slot]);
                Same(alone, together.AsSpan(step.Offsets[i] * TinyCheckpoint.Vocabulary, alone.Length), $"round {round}, slot {slot}");
                Assert.Equal(Snapshot(rig, slot + 3), Snapshot(rig, slot));
            }

            for (int slot = 0; slot < 6; slot++) rig.State.Reset(slot);
        }
    }

    private static int[] Chosen(int[] ids, ReadOnlySpan<int> nodes)
    {
        var chosen = new int[nodes.Length];
        for (int i = 0; i < chosen.Length; i++) chosen[i] = ids[nodes[i]];
        return chosen;
    }

    private static ReadOnlySpan<float> Row(float[] logits, int row) => logits.AsSpan(row * TinyCheckpoint.Vocabulary, TinyCheckpoint.Vocabulary);

    private static void Same(ReadOnlySpan<float> want, ReadOnlySpan<float> got, string what)
    {
        Assert.True(want.Length > 0 && !want.Contains(float.NaN), what);
        Close.SameBits(Close.Widen(want), Close.Widen(got), what);
    }

    private static byte[] Snapshot(Rig rig, int slot)
    {
        using var bytes = new MemoryStream();
        rig.State.Snapshot(slot, bytes);
        return bytes.ToArray();
    }

    /// <summary>A tiny model on a backend of its own, from a folder of its own.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly TemporaryFolder _folder = new();
        private readonly KernelBackend _backend;
        private readonly ModelRig _rig;

        public Rig(string name, string model, bool linear, WeightForm form, ElementType stored)
        {
            new TinyCheckpoint(model, linear).Save(_folder.Path, stored);
            _backend = BackendsUnderTest.Open(name);
            _rig = new ModelRig(CausalModel.Load(_folder.Path, _backend, new LoadOptions { Strict = true, WeightForm = form }), slots: 6, capacity: 200);
        }

        public Random Random { get; } = new(17);

        public CausalModel Model => _rig.Model;

        public AttentionState State => _rig.State;

        public Step Step => _rig.Step;

        public int[] Ids(int count) => [.. Enumerable.Range(0, count).Select(_ => Random.Next(TinyCheckpoint.Vocabulary))];

        public float[] Advance(int slot, params ReadOnlySpan<int> ids) => _rig.Advance(slot, ids);

        public float[] Advance(int slot, ReadOnlySpan<int> ids, ReadOnlySpan<int> pieces) => _rig.Advance(slot, ids, pieces);

        /// <summary>The last token's logits of a prompt that is fed in pieces.</summary>
        public float[] Last(int slot, int[] ids, int piece)
        {
            float[] logits = [];
            for (int at = 0; at < ids.Length; at += piece)
            {
                Step.Clear();
                Step.Advance(slot, piece);
                logits = Model.Backend.Download<float>(Model.Forward(State, Step, ids.AsSpan(at, piece)).Logits);
            }

            return logits;
        }

        public float[] Verify(int slot, TokenTree tree, ReadOnlySpan<int> ids) => _rig.Verify(slot, tree, ids);

        public void Dispose()
        {
            _rig.Dispose();
            _backend.Dispose();
            _folder.Dispose();
        }
    }
}
