using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, AcceptView, Rows, float, int>? _typicalRows;
    private Action<AcceleratorStream, Index1D, AcceptView, ArrayView<int>, long, Rows, TypicalRule, ArrayView<int>, long>? _typicalWalk;
    private DeviceArray<int>? _largest;

    /// <inheritdoc/>
    protected override void AcceptTypicalCore(Step step, DeviceTensor tokens, DeviceTensor logits, float temperature, float threshold, float alpha, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(step);
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(accepted);
        if (step.Entries == 0) return;
        RequireIndices(tokens, logits.RowLength, nameof(tokens));
        Rows rows = Floats(logits, 0);
        if (logits.Count == 0) rows = new Rows((_unused ??= new DeviceArray<int>(this)).Reserve(1).Cast<float>(), 1);
        if (temperature == 0)
        {
            ArrayView<int> largest = (_largest ??= new DeviceArray<int>(this)).Reserve(Math.Max(1, logits.Rows));
            if (logits.Count > 0) ArgMax(rows, logits.Rows, logits.RowLength, largest, 1);
            Accept(step, tokens, largest, 1, accepted, (_unused ??= new DeviceArray<int>(this)).Reserve(step.Entries), 1);
            return;
        }

        ForgetIntegers(accepted);
        AcceptView view = (_acceptTables ??= new AcceptTables(this)).View(step);
        if (logits.Count > 0)
        {
            Load(ref _typicalRows, TypicalRowsKernel)(
                Stream, RowGroups(logits.Rows, logits.RowLength), view, rows, temperature, logits.RowLength);
        }

        Load(ref _typicalWalk, TypicalWalkKernel)(
            Stream, step.Entries, view, Integers(tokens), tokens.RowStride, rows, new TypicalRule(temperature, threshold, alpha, logits.Rows), Integers(accepted), accepted.RowStride);
    }

    // A group a row: its largest logit, the sum of its weights, its entropy.
    private static void TypicalRowsKernel(AcceptView view, Rows logits, float temperature, int columns)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Most);
        int row = Grid.IdxX;
        float largest = float.NegativeInfinity, total = 0, entropy = 0;
        for (int c = Group.IdxX; c < columns; c += Group.DimX) largest = RowGroup.Larger(largest, logits[row, c]);
        largest = RowGroup.Max(shared, largest);
        for (int c = Group.IdxX; c < columns; c += Group.DimX) total += XMath.Exp((logits[row, c] - largest) / temperature);
        total = RowGroup.Sum(shared, total);
        for (int c = Group.IdxX; c < columns; c += Group.DimX)
        {
            float p = XMath.Exp((logits[row, c] - largest) / temperature) / total;
            entropy -= p * XMath.Log(p + 1e-5f);
        }

        entropy = RowGroup.Sum(shared, entropy);
        if (Group.IdxX != 0) return;
        view.Numbers[3 * row] = largest;
        view.Numbers[3 * row + 1] = total;
        view.Numbers[3 * row + 2] = entropy;
    }

    // One thread an entry: likelihoods from the root on, then the deepest, the likeliest, the one above the latest leaf.
    private static void TypicalWalkKernel(Index1D entry, AcceptView view, ArrayView<int> tokens, long tokenStride, Rows logits, TypicalRule rule, ArrayView<int> accepted, long acceptedStride)
    {
        for (int i = 0; i < view.MaxDepth; i++) accepted[entry * acceptedStride + i] = -1;
        int count = view.Count(entry), offset = view.Offset(entry), first = view.LogitOffset(entry), likelihoods = 3 * rule.Rows + offset;
        if (count == 0) return;

        // Scratch: a node's depth (-1: not accepted), and the last node below it.
        for (int node = 0; node < count; node++)
        {
            int parent = view.Parent(offset + node), depth = node == 0 ? 0 : -1;
            float likelihood = 0;
            if (parent >= 0 && view.Scratch[2 * (offset + parent)] >= 0)
            {
                int row = first + parent;
                float entropy = view.Numbers[3 * row + 2], least = XMath.Min(rule.Threshold, rule.Alpha * XMath.Exp(-entropy));
                float p = XMath.Exp((logits[row, tokens[(offset + node) * tokenStride]] - view.Numbers[3 * row]) / rule.Temperature) / view.Numbers[3 * row + 1];
                if (p > least)
                {
                    depth = view.Scratch[2 * (offset + parent)] + 1;
                    likelihood = view.Numbers[likelihoods + parent] + XMath.Log(p);
                }
            }

            view.Scratch[2 * (offset + node)] = depth;
            view.Scratch[2 * (offset + node) + 1] = node;
            view.Numbers[likelihoods + node] = likelihood;
        }

        for (int node = count - 1; node > 0; node--)
        {
            int parent = view.Parent(offset + node);
            if (parent >= 0) view.Scratch[2 * (offset + parent) + 1] = XMath.Max(view.Scratch[2 * (offset + parent) + 1], view.Scratch[2 * (offset + node) + 1]);
        }

        int best = 0;
        for (int node = 1; node < count; node++)
        {
            int depth = view.Scratch[2 * (offset + node)], bestDepth = view.Scratch[2 * (offset + best)];
            float likelihood = view.Numbers[likelihoods + node], bestLikelihood = view.Numbers[likelihoods + best];
            bool later = view.Scratch[2 * (offset + node) + 1] > view.Scratch[2 * (offset + best) + 1];
            if (depth > bestDepth || (depth == bestDepth && (likelihood > bestLikelihood || (likelihood == bestLikelihood && later)))) best = node;
        }

        int at = best;
        for (int depth = view.Scratch[2 * (offset + best)]; depth >= 0; depth--)
        {
            accepted[entry * acceptedStride + depth] = at;
            at = view.Parent(offset + at);
        }
    }
}

/// <summary>Medusa's rule of acceptance: p &gt; min(threshold, alpha · exp(-entropy)).</summary>
internal readonly struct TypicalRule(float temperature, float threshold, float alpha, int rows)
{
    public readonly float Temperature = temperature;
    public readonly float Threshold = threshold;
    public readonly float Alpha = alpha;
    public readonly int Rows = rows;
}
