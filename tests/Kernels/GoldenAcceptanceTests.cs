using System.Text.Json;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Recorded trees, candidates and accepted paths of Medusa's utilities.</summary>
public class GoldenAcceptanceTests
{
    public static TheoryData<string, string> Cases => GoldenAttentionTests.Cross(Golden.Cases("acceptance"));

    [Theory, MemberData(nameof(Cases))]
    public void The_tree_of_the_choices_is_the_references(string name, string file)
    {
        using var golden = new GoldenCase(file);
        int[][] choices = JsonSerializer.Deserialize<int[][]>(golden["choices"])!;
        TokenTree tree = TokenTree.FromChoices(choices);
        int[] nodes = [.. Enumerable.Range(0, tree.Count)];
        Assert.Equal(golden.Integers("parent"), nodes.Select(tree.Parent));
        Assert.Equal(golden.Integers("depth"), nodes.Select(tree.Depth));
        Assert.Equal(golden.Integers("attention_mask"), nodes.SelectMany(node => nodes.Select(other => tree.IsOnPath(other, node) ? 1 : 0)));

        int width = golden.Shape("retrieve_indices")[1];
        int[] leaves = [.. nodes.Where(node => !nodes.Any(child => tree.Parent(child) == node)).OrderDescending()];
        Assert.Equal(golden.Integers("retrieve_indices"), leaves.SelectMany(leaf =>
        {
            var row = new int[width];
            row.AsSpan(tree.PathTo(leaf, row)).Fill(-1);
            return row;
        }));

        using KernelBackend backend = BackendsUnderTest.Open(name);
        Assert.Equal(golden.Integers("tree_tokens"), Candidates(backend, golden, choices));
    }

    [Theory, MemberData(nameof(Cases))]
    public void The_accepted_path_is_the_references(string name, string file)
    {
        using var golden = new GoldenCase(file);
        TokenTree tree = TokenTree.FromParents(golden.Integers("parent"));
        using KernelBackend backend = BackendsUnderTest.Open(name);
        var step = new Step();
        step.Verify(0, tree);
        using DeviceTensor tokens = backend.Upload<int>(golden.Integers("tree_tokens"), tree.Count);
        using DeviceTensor logits = backend.Upload<float>(golden.Floats("node_logits"), golden.Shape("node_logits"));
        using DeviceTensor accepted = backend.Allocate(ElementType.Int32, 1, step.MaxDepth);
        if (golden["rule"] == "greedy")
        {
            using DeviceTensor chosen = backend.Allocate(ElementType.Int32, tree.Count);
            using DeviceTensor next = backend.Allocate(ElementType.Int32, 1);
            backend.ArgMax(logits, chosen);
            backend.Accept(step, tokens, chosen, accepted, next);
            Assert.Equal(backend.Download<int>(chosen)[golden.Integers("accepted")[^1]], backend.Download<int>(next)[0]);
        }
        else
        {
            Assert.Equal("typical", golden["rule"]);
            backend.AcceptTypical(step, tokens, logits, golden.Number("temperature"), golden.Number("posterior_threshold"), golden.Number("posterior_alpha"), accepted);
        }

        int[] path = backend.Download<int>(accepted);
        Assert.Equal(golden.Integers("accepted"), path.Where(node => node >= 0));
        Assert.All(path[golden.Integers("accepted").Length..], node => Assert.Equal(-1, node));
    }

    // Node 0: the argmax of the model itself; a choice: the token of its last rank under its level's head.
    private static int[] Candidates(KernelBackend backend, GoldenCase golden, int[][] choices)
    {
        int heads = golden.Shape("medusa_logits")[0], vocabulary = golden.Shape("medusa_logits")[1], best = golden.Integer("topk");
        using DeviceTensor own = backend.Upload<float>(golden.Floats("base_logits"), 1, vocabulary);
        using DeviceTensor ownToken = backend.Allocate(ElementType.Int32, 1);
        using DeviceTensor guesses = backend.Upload<float>(golden.Floats("medusa_logits"), heads, vocabulary);
        using DeviceTensor values = backend.Allocate(ElementType.Float32, heads, best);
        using DeviceTensor indices = backend.Allocate(ElementType.Int32, heads, best);
        backend.ArgMax(own, ownToken);
        backend.TopK(guesses, values, indices);
        int[] ranked = backend.Download<int>(indices);
        return [backend.Download<int>(ownToken)[0], .. TokenTree.SortChoices(choices).Select(choice => ranked[(choice.Length - 1) * best + choice[^1]])];
    }
}
