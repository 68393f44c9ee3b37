using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Which trees there are, and which of them is picked: by made-up costs and acceptance, so that no clock has a say.</summary>
public class TreeChooserTests
{
    private const int Levels = 4;
    private const int Ranks = 10;

    [Fact]
    public void The_ladder_of_four_heads()
    {
        TreeLadder ladder = TreeLadder.Create(TreePolicy.Auto, Levels, Ranks, adaptive: true);
        Assert.Equal([1, 2, 3, 4, 5, 8, 16, 32, 64], Sizes(ladder));
        Nested(ladder);
        // The largest rung is the published tree.
        DraftTree published = TreeLadder.Create(TreePolicy.Medusa63, Levels, Ranks, adaptive: true)[0];
        Assert.Equal(Choices(published), Choices(ladder[ladder.Rungs - 1]));
        Assert.Equal((64, 5), (published.Count, published.Levels));
        DraftTree fixedTree = TreeLadder.Create(TreePolicy.Auto, Levels, Ranks, adaptive: false)[0];
        Assert.Equal(16, fixedTree.Count);
    }

    [Theory, InlineData(16, 1), InlineData(1, 1), InlineData(2, 3), InlineData(0, 1), InlineData(3, 10), InlineData(5, 2), InlineData(1023, 1)]
    public void Ladders_fit_their_drafters(int levels, int ranks)
    {
        TreeLadder ladder = TreeLadder.Create(TreePolicy.Auto, levels, ranks, adaptive: true);
        Assert.Equal(1, ladder[0].Count);
        Nested(ladder);
        for (int rung = 0; rung < ladder.Rungs; rung++)
            Assert.All(Choices(ladder[rung]), choice => Assert.True(choice.Length <= levels && choice.All(rank => rank < ranks)));
        if (ranks == 1 && levels >= 16) Assert.Equal([1, 2, 3, 4, 5, 9, 17], Sizes(ladder));
    }

    [Fact]
    public void A_list_is_cut_to_the_heads_that_exist()
    {
        TreePolicy policy = TreePolicy.Parse("[[0],[0,0],[0,0,0],[5],[0,2],[1],[1,0]]");
        DraftTree tree = TreeLadder.Create(policy, levels: 2, ranks: 2, adaptive: true)[0];
        Assert.Equal([[0], [1], [0, 0], [1, 0]], Choices(tree));
        Assert.Equal(3, TreeLadder.Create(TreePolicy.Chain(20), levels: 2, ranks: 1, adaptive: true)[0].Count);
        Assert.Equal(1, TreeLadder.Create(TreePolicy.Chain(0), levels: 2, ranks: 1, adaptive: true)[0].Count);
        DraftTree medusa = TreeLadder.Create(TreePolicy.Medusa63, levels: 3, ranks: 10, adaptive: true)[0];
        Assert.Equal(62, medusa.Count);                     // without [0, 0, 0, 0] and [0, 0, 0, 1]
        Assert.All(Choices(medusa), choice => Assert.True(choice.Length <= 3));
        Assert.Equal([[0], [1]], Choices(tree.Cut(2)));
        Assert.Same(tree.Cut(2), tree.Cut(2));
        Assert.Same(tree, tree.Cut(3));
        Assert.Equal(1, tree.Cut(1).Count);
    }

    [Fact]
    public void Policies_are_read_and_written()
    {
        foreach (string text in new[] { "auto", "medusa63", "chain:0", "chain:7", "chain:1023", "[[0],[1],[0,2]]", "[]" }) Assert.Equal(text, TreePolicy.Parse(text).ToString());
        Assert.Equal("[[0],[1]]", TreePolicy.Parse(" [ [0],\n [1] ] ").ToString());
        foreach (string text in new[] { "", "Auto", "chain", "chain:", "chain:-1", "chain:1024", "chain:99999999999", "tree.json" })
            Assert.StartsWith("tree: expected auto, medusa63, chain:N (0 to 1023) or a JSON list of choices, got " + text, Assert.Throws<ArgumentException>(() => TreePolicy.Parse(text)).Message, StringComparison.Ordinal);
        Assert.StartsWith("tree: expected a JSON list of lists of ranks", Assert.Throws<ArgumentException>(() => TreePolicy.Parse("[[0],")).Message, StringComparison.Ordinal);
        Assert.StartsWith("choices: [0, 1] is listed without its prefix", Assert.Throws<ArgumentException>(() => TreePolicy.Parse("[[0,1]]")).Message, StringComparison.Ordinal);
        Assert.StartsWith("choices: [0] is listed twice", Assert.Throws<ArgumentException>(() => TreePolicy.Parse("[[0],[0]]")).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => TreePolicy.Parse("[[-1]]"));
        Assert.Throws<ArgumentException>(() => TreePolicy.Parse("[null]"));
        Assert.Throws<ArgumentException>(() => TreePolicy.Choices([.. Enumerable.Range(0, 1024).Select(rank => new[] { rank })]));
        Assert.Throws<ArgumentOutOfRangeException>(() => TreePolicy.Chain(-1));
    }

    [Fact]
    public void Costs_lie_between_what_was_measured()
    {
        var cost = new StepCost();
        Assert.Equal(0, cost.Of(5));
        cost.Record(4, 2);
        cost.Record(8, 4);
        Assert.Equal([2, 2, 2.5, 3, 4, 4], new[] { 1, 4, 5, 6, 8, 900 }.Select(cost.Of));
        cost.Record(8, 400);                                // a disturbance counts little, and at most three times what is known
        Assert.InRange(cost.Of(8), 4, 5);
        cost.Record(8, 1);                                  // more rows for less: what fewer cost was a disturbance
        Assert.True(cost.Of(4) <= cost.Of(8));
        cost.Record(0, 1);
        cost.Record(5000, 1);
        Assert.Equal(cost.Of(8), cost.Of(1024));
    }

    [Fact]
    public void Where_rows_are_dear_it_stays_with_one()
    {
        Run run = Simulate(rows => rows, rank0: 0.5, rank1: 0.1);
        Assert.True(run.Share(nodes => nodes == 1) > 0.9, run.ToString());
        Assert.True(run.Speed > 0.97, run.ToString());
    }

    [Fact]
    public void Where_rows_are_free_and_guesses_good_it_takes_the_widest_tree()
    {
        Run run = Simulate(_ => 1, rank0: 0.6, rank1: 0.2);
        Assert.True(run.Share(nodes => nodes == 64) > 0.85, run.ToString());
        Assert.True(run.Speed > 2.5, run.ToString());
    }

    [Fact]
    public void Code_that_is_slow_when_it_first_runs_does_not_end_the_climb()
    {
        var seen = new HashSet<int>();
        Run run = Simulate(rows => seen.Add(rows) ? 1000 : 1, rank0: 0.9, rank1: 0.05, steps: 200);
        Assert.True(run.Share(nodes => nodes >= 5, from: 50) > 0.8, run.ToString());
    }

    [Fact]
    public void It_stops_where_rows_become_dear()
    {
        Run run = Simulate(rows => rows <= 8 ? 1 : rows / 8.0, rank0: 0.7, rank1: 0.1);
        Assert.True(run.Share(nodes => nodes is >= 4 and <= 8) > 0.85, run.ToString());
        Assert.True(run.Speed > 1.9, run.ToString());
    }

    [Theory, InlineData(0), InlineData(1), InlineData(2), InlineData(3)]
    public void It_never_loses_for_long(int seed)
    {
        var random = new Random(seed);
        for (int i = 0; i < 30; i++)
        {
            double perRow = random.Pick(0, 0.01, 0.05, 0.2, 1, 3), noise = random.Pick(0, 0.1, 0.3), rank0 = random.NextDouble(), rank1 = (1 - rank0) * random.NextDouble();
            var disturbance = new Random(i);
            Run run = Simulate(rows => (1 + perRow * (rows - 1)) * (1 + noise * disturbance.NextDouble() * disturbance.NextDouble()), rank0, rank1, steps: 4000);
            Assert.True(run.Speed > 0.93, $"{perRow} a row, noise {noise}, ranks {rank0:f2} {rank1:f2}: {run}");
        }
    }

    [Fact]
    public void It_follows_a_change()
    {
        // First nothing is right, then nearly everything, then nothing again.
        Run run = Simulate(rows => 1 + 0.2 * (rows - 1), rank0: 0, rank1: 0, steps: 9000, acceptance: step => step is > 3000 and <= 6000 ? 0.95 : 0);
        Assert.True(run.Share(nodes => nodes == 1, 2000, 3000) > 0.9, run.ToString());
        Assert.True(run.Share(nodes => nodes >= 4, 5000, 6000) > 0.9, run.ToString());
        Assert.True(run.Share(nodes => nodes == 1, 8000, 9000) > 0.9, run.ToString());
    }

    [Fact]
    public void The_same_measurements_give_the_same_choices() =>
        Assert.Equal(Simulate(rows => 1 + rows / 20.0, 0.6, 0.2).Sizes, Simulate(rows => 1 + rows / 20.0, 0.6, 0.2).Sizes);

    private static int[] Sizes(TreeLadder ladder) => [.. Enumerable.Range(0, ladder.Rungs).Select(rung => ladder[rung].Count)];

    /// <summary>Each rung holds the one before, and its nodes know by which they came.</summary>
    private static void Nested(TreeLadder ladder)
    {
        for (int rung = 0; rung < ladder.Rungs; rung++)
        {
            List<int[]> own = Choices(ladder[rung]), before = rung == 0 ? [] : Choices(ladder[rung - 1]);
            Assert.True(rung == 0 || own.Count > before.Count);
            for (int i = 0; i < own.Count; i++)
            {
                int smallest = Enumerable.Range(0, rung + 1).First(r => Choices(ladder[r]).Any(choice => choice.SequenceEqual(own[i])));
                Assert.Equal(smallest, ladder[rung].Rung(i + 1));
            }

            Assert.All(before, choice => Assert.Contains(own, other => other.SequenceEqual(choice)));
        }
    }

    /// <summary>What each node but the root guesses, as a path of ranks.</summary>
    private static List<int[]> Choices(DraftTree tree)
    {
        // Guesses that say where they come from.
        int[] guesses = [.. Enumerable.Range(0, 1024 * Ranks)], tokens = new int[tree.Count];
        tree.Fill(-1, guesses, Ranks, tokens);
        var path = new int[tree.Levels];
        return [.. Enumerable.Range(1, tree.Count - 1).Select(node => path[1..tree.Tree.PathTo(node, path)].Select(at => tokens[at] % Ranks).ToArray())];
    }

    /// <summary>Decodes with made-up costs; at each depth the best guess is right so often, the second so often.</summary>
    private static Run Simulate(Func<int, double> seconds, double rank0, double rank1, int steps = 3000, Func<int, double>? acceptance = null)
    {
        var random = new Random(1);
        var cost = new StepCost();
        TreeLadder ladder = TreeLadder.Create(TreePolicy.Auto, Levels, Ranks, adaptive: true);
        var chooser = new TreeChooser(ladder);
        int[] guesses = [.. Enumerable.Range(0, Levels * Ranks)], path = new int[Levels + 1];
        var sizes = new int[steps];
        double tokens = 0, time = 0, plain = 0;
        for (int step = 0; step < steps; step++)
        {
            int rung = chooser.Next(cost, otherRows: 0);
            DraftTree tree = ladder[rung];
            var held = new int[tree.Count];
            tree.Fill(-1, guesses, Ranks, held);
            int length = 1, node = 0;
            while (length <= Levels)
            {
                double draw = random.NextDouble(), best = acceptance?.Invoke(step) ?? rank0;
                int right = draw < best ? 0 : draw < best + rank1 ? 1 : -1;
                int child = right < 0 ? -1 : Array.FindIndex(held, node + 1, token => token == (length - 1) * Ranks + right);
                while (child > 0 && tree.Tree.Parent(child) != node) child = Array.FindIndex(held, child + 1, token => token == (length - 1) * Ranks + right);
                if (child < 0) break;
                path[length++] = node = child;
            }

            chooser.Record(rung, tree, path.AsSpan(0, length));
            double spent = seconds(tree.Count);
            cost.Record(tree.Count, spent);
            (sizes[step], tokens, time, plain) = (tree.Count, tokens + length, time + spent, plain + seconds(1));
        }

        return new Run(sizes, tokens / time / (steps / plain));
    }

    /// <summary>A simulated text.</summary>
    /// <param name="Sizes">Nodes of each step's tree.</param>
    /// <param name="Speed">Tokens a second, 1 for one at a time.</param>
    private sealed record Run(int[] Sizes, double Speed)
    {
        public double Share(Func<int, bool> which, int from = 0, int to = int.MaxValue)
        {
            int[] part = [.. Sizes.Take(to).Skip(from)];
            return (double)part.Count(which) / part.Length;
        }

        public override string ToString() => $"speed {Speed:f2}; {string.Join(", ", Sizes.GroupBy(size => size).OrderBy(group => group.Key).Select(group => $"{group.Key} nodes: {group.Count()}"))}";
    }
}
