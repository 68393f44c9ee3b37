using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>What acceptance walks: a step's trees in device memory, and room for what it finds.</summary>
internal sealed class AcceptTables(IlgpuBackend backend) : IDisposable
{
    private readonly StepTables _trees = new(backend);
    private readonly DeviceArray<int> _scratch = new(backend);
    private readonly DeviceArray<float> _numbers = new(backend);

    /// <summary>The tables of a step: those that its state uploaded when it began, so that nothing waits for the forward pass; its own where another step has begun since, or this one never has.</summary>
    public AcceptView View(Step step)
    {
        // The kernels count in 32 bits.
        if (3L * step.LogitCount + 2L * step.Tokens > int.MaxValue) throw new NotSupportedException($"a step of {step.Tokens} tokens and {step.LogitCount} logit rows is more than acceptance takes");
        StepView trees = step.State is IlgpuState { IsDisposed: false } state && state.Backend == backend && state.Tables.Are(step) ? state.Tables.View(step, state) : _trees.WithoutLengths(step);
        return new AcceptView(trees, _scratch.Reserve(2L * step.Tokens), _numbers.Reserve(3L * step.LogitCount + step.Tokens), step.MaxDepth);
    }

    public void Dispose()
    {
        _trees.Dispose();
        _scratch.Dispose();
        _numbers.Dispose();
    }
}

/// <summary>The tables as kernels see them.</summary>
internal readonly struct AcceptView(StepView step, ArrayView<int> scratch, ArrayView<float> numbers, int maxDepth)
{
    public readonly StepView Step = step;
    public readonly ArrayView<int> Scratch = scratch;
    public readonly ArrayView<float> Numbers = numbers;
    public readonly int MaxDepth = maxDepth;

    public int Offset(int entry) => Step.Offset(entry);

    /// <summary>Nodes to walk: none where the entry moves.</summary>
    public int Count(int entry) => Step.Moves(entry) != 0 ? 0 : Step.Count(entry);

    public int LogitOffset(int entry) => Step.LogitOffset(entry);

    /// <summary>Which of an entry's logit rows gives the next token where nothing is walked; -1: none.</summary>
    public int LastRow(int entry) => Step.Moves(entry) != 0 ? Step.LogitCount(entry) - 1 : Step.Count(entry) == 0 ? -1 : 0;

    /// <summary>A node's parent in its tree, by the token's place in the step.</summary>
    public int Parent(int token) => Step.Parent(token);
}
