using Treeline.Kernels;

namespace Treeline.Cli.Comparison;

/// <summary>The ops that choose from logits.</summary>
internal static class SelectCases
{
    private const int Rows = 5, Vocabulary = 1003, Few = 2;

    // Two tokens for many nodes: siblings carry equal ones, and paths are accepted.
    private static readonly int[] Parents = [-1, 0, 0, 0, 1, 1, 2, 4, 4, 5, 7, 7, 8, 10, 10, 13];

    public static IReadOnlyList<OpCase> All { get; } =
    [
        new("ArgMax", "", ArgMax),
        new("TopK", "", TopK),
        new("LogProbability", "", LogProbability),
        new("Sample", "", Sample),
        new("Accept", "", Accept),
        new("AcceptTypical", "", AcceptTypical),
    ];

    private static void ArgMax(OpBench bench)
    {
        DeviceTensor tokens = bench.IntegerOutput(Rows);
        bench.Backend.ArgMax(bench.Reals(Rows, Vocabulary), tokens);
        bench.Take(tokens);
    }

    private static void TopK(OpBench bench)
    {
        const int K = 17;
        DeviceTensor values = bench.Output(Rows, K), indices = bench.IntegerOutput(Rows, K);
        bench.Backend.TopK(bench.Reals(Rows, Vocabulary), values, indices);
        bench.Take(values, "values");
        bench.Take(indices, "indices");
    }

    private static void LogProbability(OpBench bench)
    {
        DeviceTensor output = bench.Output(Rows);
        bench.Backend.LogProbability(bench.Reals(Rows, Vocabulary), bench.Integers(bench.Below(Vocabulary, Rows)), output);
        bench.Take(output);
    }

    private static void Sample(OpBench bench)
    {
        SamplingRow[] rows =
        [
            new(1, 10, 0), new(2, 11, 1), new(3, 12, 0.7f, TopP: 0.9f), new(4, 13, 1.3f, TopK: 40, MinP: 0.02f), new(5, 14, 2),
        ];
        DeviceTensor tokens = bench.IntegerOutput(Rows);
        bench.Backend.Sample(bench.Reals(Rows, Vocabulary), rows, tokens);
        bench.Take(tokens);
    }

    private static void Accept(OpBench bench)
    {
        Step step = Verification();
        DeviceTensor accepted = bench.IntegerOutput(step.Entries, step.MaxDepth), next = bench.IntegerOutput(step.Entries);
        bench.Backend.Accept(step, bench.Integers(bench.Below(Few, step.Tokens)), bench.Integers(bench.Below(Few, step.LogitCount)), accepted, next);
        bench.Take(accepted, "accepted");
        bench.Take(next, "next");
    }

    private static void AcceptTypical(OpBench bench)
    {
        Step step = Verification();
        DeviceTensor accepted = bench.IntegerOutput(step.Entries, step.MaxDepth);
        bench.Backend.AcceptTypical(step, bench.Integers(bench.Below(Few, step.Tokens)), bench.Reals(step.LogitCount, Few), 0.7f, 0.2f, 0.5f, accepted);
        bench.Take(accepted);
    }

    private static Step Verification()
    {
        var step = new Step();
        step.Verify(0, TokenTree.FromParents(Parents));
        step.Advance(1, 3);
        step.Verify(2, TokenTree.FromParents([-1, 0, 0, 1, 2, 2]));
        return step;
    }
}
