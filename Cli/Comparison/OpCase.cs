namespace Treeline.Cli.Comparison;

/// <summary>One op of the contract with inputs for it.</summary>
/// <param name="Op">The op: the name of its kernel without <c>Core</c>.</param>
/// <param name="Detail">Which form of it, empty where there is only one.</param>
/// <param name="Run">Runs it and takes its outputs.</param>
internal sealed record OpCase(string Op, string Detail, Action<OpBench> Run)
{
    /// <summary>Every op of the contract, in the order in which they are compared.</summary>
    public static IReadOnlyList<OpCase> All { get; } = [.. DenseCases.All, .. SelectCases.All, .. AttentionCases.All];
}
