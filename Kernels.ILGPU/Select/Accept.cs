using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, AcceptView, ArrayView<int>, long, ArrayView<int>, long, ArrayView<int>, long, ArrayView<int>, long>? _accept;
    private AcceptTables? _acceptTables;
    private DeviceArray<int>? _unused;

    /// <inheritdoc/>
    protected override void AcceptCore(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next)
    {
        ArgumentNullException.ThrowIfNull(step);
        ArgumentNullException.ThrowIfNull(next);
        if (step.Entries == 0) return;
        ForgetIntegers(next);
        Accept(step, tokens, Integers(chosen), chosen.RowStride, accepted, Integers(next), next.RowStride);
    }

    private void Accept(Step step, DeviceTensor tokens, ArrayView<int> chosen, long chosenStride, DeviceTensor accepted, ArrayView<int> next, long nextStride)
    {
        ForgetIntegers(accepted);
        AcceptView view = (_acceptTables ??= new AcceptTables(this)).View(step);
        Load(ref _accept, AcceptKernel)(
            Stream, step.Entries, view, Integers(tokens), tokens.RowStride, chosen, chosenStride, Integers(accepted), accepted.RowStride, next, nextStride);
    }

    /// <summary>A tensor's integers; a kernel's argument is never empty, what a step lacks is not read.</summary>
    private ArrayView<int> Integers(DeviceTensor tensor) => tensor.Count > 0 ? Elements<int>(tensor) : (_unused ??= new DeviceArray<int>(this)).Reserve(1);

    // One thread an entry. Children come after their parents, so going backwards each node's best child is known when its own turn comes; the first of equals is seen last.
    private static void AcceptKernel(Index1D entry, AcceptView view, ArrayView<int> tokens, long tokenStride, ArrayView<int> chosen, long chosenStride,
        ArrayView<int> accepted, long acceptedStride, ArrayView<int> next, long nextStride)
    {
        for (int i = 0; i < view.MaxDepth; i++) accepted[entry * acceptedStride + i] = -1;
        int count = view.Count(entry), offset = view.Offset(entry), logits = view.LogitOffset(entry), last = view.LastRow(entry);
        if (count > 0)
        {
            for (int node = 0; node < count; node++)
            {
                view.Scratch[2 * (offset + node)] = 1;
                view.Scratch[2 * (offset + node) + 1] = -1;
            }

            for (int node = count - 1; node > 0; node--)
            {
                int parent = view.Parent(offset + node);
                if (parent < 0 || tokens[(offset + node) * tokenStride] != chosen[(logits + parent) * chosenStride]) continue;
                int length = view.Scratch[2 * (offset + node)] + 1;
                if (length < view.Scratch[2 * (offset + parent)]) continue;
                view.Scratch[2 * (offset + parent)] = length;
                view.Scratch[2 * (offset + parent) + 1] = node;
            }

            int at = 0, depth = 0;
            while (at >= 0)
            {
                accepted[entry * acceptedStride + depth++] = at;
                last = at;
                at = view.Scratch[2 * (offset + at) + 1];
            }
        }

        next[entry * nextStride] = last < 0 ? -1 : chosen[(logits + last) * chosenStride];
    }
}
