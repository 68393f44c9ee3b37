using Treeline.Kernels;

namespace Treeline.Cli.Comparison;

/// <summary>Each kind of attention: prompts, a tree across a group's end beside another sequence's chunk, the accepted path, and what follows.</summary>
internal static class AttentionCases
{
    private const int QueryHeads = 4, KeyValueHeads = 2, HeadDim = 20, GroupSize = 16, Capacity = 128;
    private const int Prompt = 43;                          // five tokens before a group ends

    private static readonly int[] Parents = [-1, 0, 0, 1, 1, 2, 3, 3, 4, 6, 6, 7, 9, 9, 12, 12, 14];
    private static readonly int[] Accepted = [0, 1, 3, 6, 9, 12, 14];

    public static IReadOnlyList<OpCase> All { get; } =
    [
        .. AttentionKinds.Of(QueryHeads, KeyValueHeads, HeadDim, GroupSize)
            .Select(kind => new OpCase(NameOf(kind.Spec.Attention), kind.Name, bench => Run(bench, kind.Spec))),
    ];

    // "flash" is computed by FlashAttendCore.
    private static string NameOf(string attention) => $"{char.ToUpperInvariant(attention[0])}{attention[1..]}Attend";

    private static void Run(OpBench bench, AttentionSpec spec)
    {
        Dictionary<string, DeviceTensor> weights = Attentions.Find(spec.Attention)!.Weights(spec).ToDictionary(weight => weight.Name, weight => bench.Reals([.. weight.Shape]));
        AttentionLayer layer = bench.Own(bench.Backend.Bind(spec, weights));
        AttentionState state = bench.Own(bench.Backend.CreateState([spec], slots: 2, Capacity));
        var step = new Step();
        step.Advance(0, Prompt);
        step.Advance(1, 3);
        Attend(bench, layer, state, step);

        step.Clear();
        step.Verify(0, TokenTree.FromParents(Parents));
        step.Advance(1, 2 * GroupSize);
        Attend(bench, layer, state, step);
        var paths = new int[step.Entries * step.MaxDepth];
        paths.AsSpan().Fill(-1);
        Accepted.CopyTo(paths, 0);
        bench.Backend.Commit(state, step, paths);

        step.Clear();
        step.Advance(0, 1);
        step.Verify(1, TokenTree.FromParents([-1, 0, 0]));
        Attend(bench, layer, state, step);
    }

    private static void Attend(OpBench bench, AttentionLayer layer, AttentionState state, Step step)
    {
        AttentionSpec spec = layer.Spec;
        DeviceTensor output = bench.Output(step.Tokens, spec.QueryHeads, spec.ValueDim);
        bench.Backend.Attend(layer, state[0], step, new AttentionInputs(bench.Reals(step.Tokens, spec.QueryHeads, spec.HeadDim),
            bench.Reals(step.Tokens, spec.KeyValueHeads, spec.HeadDim), bench.Reals(step.Tokens, spec.KeyValueHeads, spec.ValueDim)), output);
        state.Complete(step);
        bench.Take(output);
    }
}
