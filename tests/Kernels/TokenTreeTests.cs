using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Kernels;

public class TokenTreeTests
{
    [Fact]
    public void A_path_is_the_tree_whose_parents_come_just_before()
    {
        TokenTree path = TokenTree.FromParents([-1, 0, 1, 2]);
        Assert.True(path.IsPath);
        Assert.Equal(4, path.Levels);
        Assert.True(path.IsOnPath(1, 3));
        Assert.False(path.IsOnPath(3, 1));
    }

    [Fact]
    public void Ancestors_follow_the_parents_beyond_one_word()
    {
        var random = new Random(1);
        int[] parents = [.. Enumerable.Range(0, 200).Select(i => random.Next(-1, i))];
        TokenTree tree = TokenTree.FromParents(parents);
        for (int i = 0; i < parents.Length; i++)
        {
            var path = new HashSet<int>();
            for (int at = i; at >= 0; at = parents[at]) path.Add(at);
            Assert.Equal(path.Count - 1, tree.Depth(i));
            for (int j = 0; j < parents.Length; j++) Assert.Equal(path.Contains(j), tree.IsOnPath(j, i));
        }
    }

    [Fact]
    public void Choices_are_sorted_by_length_then_lexicographically()
    {
        TokenTree tree = TokenTree.FromChoices([[1], [0, 1], [0], [0, 0], [1, 0]]);
        Assert.Equal([-1, 0, 0, 1, 1, 2], Enumerable.Range(0, tree.Count).Select(tree.Parent));
    }

    [Theory]
    [InlineData(new[] { 0 }, "parents: node 0: expected -1, got 0")]
    [InlineData(new[] { -1, 2, 1 }, "parents: node 1: expected -1 to 0, got 2")]
    [InlineData(new[] { -1, -2 }, "parents: node 1: expected -1 to 0, got -2")]
    public void A_parent_that_does_not_come_before_its_child_is_refused(int[] parents, string message) =>
        Assert.StartsWith(message, Assert.Throws<ArgumentException>(() => TokenTree.FromParents(parents)).Message, StringComparison.Ordinal);

    [Fact]
    public void More_than_1024_nodes_are_refused_unless_they_are_a_path()
    {
        int[] parents = [.. Enumerable.Range(-1, 1025)];
        Assert.Equal(1025, TokenTree.FromParents(parents).Count);
        parents[^1] = 0;
        Assert.Contains("at most 1024 nodes, got 1025", Assert.Throws<ArgumentException>(() => TokenTree.FromParents(parents)).Message, StringComparison.Ordinal);
    }
}
