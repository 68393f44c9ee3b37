using Treeline.Kernels;

namespace Treeline.Cli.Comparison;

/// <summary>Every op of the contract, on every backend, from the same numbers.</summary>
internal static class OpComparison
{
    /// <summary>Largest error of an op's reals: that of one attention in float32 (docs/tolerances.md).</summary>
    public const double Tolerance = 2e-5;

    /// <param name="backends">The reference, then the others.</param>
    /// <param name="tolerance">Largest error of reals; null: <see cref="Tolerance"/>.</param>
    /// <param name="progress">Told how many ops are done.</param>
    /// <param name="cancellation">Looked at between ops.</param>
    public static List<Row> Run(IReadOnlyList<(string Name, KernelBackend Backend)> backends, double? tolerance, Progress progress, CancellationToken cancellation)
    {
        List<Row> rows = [];
        for (int i = 0; i < OpCase.All.Count; i++)
        {
            OpCase op = OpCase.All[i];
            List<Attempt<List<OpOutput>>> attempts = [];
            foreach ((string name, KernelBackend backend) in backends)
            {
                cancellation.ThrowIfCancellationRequested();
                attempts.Add(Attempt<List<OpOutput>>.Of(name, () => Outputs(op, backend)));
            }

            rows.AddRange(Rows(op, attempts, tolerance ?? Tolerance));
            progress.Report(i + 1, OpCase.All.Count);
        }

        return rows;
    }

    private static List<OpOutput> Outputs(OpCase op, KernelBackend backend)
    {
        using var bench = new OpBench(backend);
        op.Run(bench);
        return bench.Outputs;
    }

    /// <summary>A row for each output by name; several of one name (a prompt, a tree, …) make one row with the largest error.</summary>
    private static IEnumerable<Row> Rows(OpCase op, List<Attempt<List<OpOutput>>> attempts, double tolerance)
    {
        List<OpOutput> known = attempts.Find(attempt => attempt.Value is not null)?.Value ?? [new OpOutput("", [], null)];
        foreach (IGrouping<string, OpOutput> group in known.GroupBy(output => output.Name))
        {
            bool isInteger = group.First().Integers is not null;
            double most = isInteger ? 0 : tolerance;
            yield return new Row(string.Join(' ', new[] { op.Op, op.Detail, group.Key }.Where(word => word.Length > 0)), op.Op, isInteger, most,
                [.. attempts.Skip(1).Select(attempt => attempt.Against(attempts[0], (want, got) => Largest(want, got, group.Key), most))]);
        }
    }

    private static double Largest(List<OpOutput> want, List<OpOutput> got, string name)
    {
        double largest = 0;
        foreach ((OpOutput wanted, OpOutput given) in want.Zip(got).Where(pair => pair.First.Name == name))
        {
            double error = wanted.Integers is { } integers ? Measure.Differences(integers, given.Integers) : Measure.RelativeError(wanted.Reals, given.Reals);
            if (!(error <= largest)) largest = error;
            if (double.IsNaN(largest)) break;
        }

        return largest;
    }
}
