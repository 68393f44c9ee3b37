using global::ILGPU;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

// What an accepted path adds to grouped attention. Its length may be known to the device alone: the host launches what the longest one that is possible needs.
public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, Index1D, StepView, CommitView, FlashMemory, ArrayView<int>, int>? _flashAppend;

    /// <summary>Appends the pending rows of accepted paths, all entries at once, group by group.</summary>
    internal void FlashAppend(IlgpuFlashLayer layer, Step step, StepView view, CommitTables commit)
    {
        AttentionSpec spec = layer.Spec;
        FlashMemory memory = layer.Memory;
        Index1D threads = Threads((long)step.Entries * spec.KeyValueHeads * Math.Max(spec.HeadDim, spec.ValueDim));
        int reach = 0;                                      // the furthest place from its block's start that a path may fill
        for (int e = 0; e < step.Entries; e++)
            if (commit.Most[e] > 0) reach = Math.Max(reach, layer.Owner.Length(step[e].Slot) % spec.GroupSize + commit.Most[e]);
        for (int from = 0, round = 0; from < reach; from += spec.GroupSize, round++)
        {
            Load(ref _flashAppend, FlashAppendKernel)(Stream, threads, view, commit.View, memory, commit.Closing, round);
            if (reach - from >= spec.GroupSize) Close(spec, memory, commit.Closing, step.Entries);
        }
    }

    // One thread a channel of an entry: the nodes of its path that lie in the round's group, one after the other, from behind the block to their places in it.
    private static void FlashAppendKernel(Index1D index, StepView step, CommitView commit, FlashMemory memory, ArrayView<int> closing, int round)
    {
        int channels = memory.KeyValueHeads * Math.Max(memory.HeadDim, memory.ValueDim), entry = index / channels, channel = index % channels, slot = step.Slot(entry);
        int count = commit.Count(entry), first = round * memory.GroupSize - step.Length(entry) % memory.GroupSize, end = Math.Min(count, first + memory.GroupSize);
        for (int i = Math.Max(0, first); i < end; i++)
        {
            int place = i - first, node = memory.GroupSize + commit.Node(entry, i);
            if (channel < memory.ValueStride) memory.Values[memory.Value(slot, place, 0) + channel] = memory.Values[memory.Value(slot, node, 0) + channel];
            if (memory.HasKeys != 0 && channel < memory.KeyStride) memory.Keys[memory.Key(slot, place, 0) + channel] = memory.Keys[memory.Key(slot, node, 0) + channel];
        }

        if (channel == 0) closing[entry] = count >= first + memory.GroupSize ? slot : ~slot;
    }
}
