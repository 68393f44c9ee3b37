using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

// A step runs in rounds: round r is the tokens of the r-th group that an entry touches, the current one first. Between two rounds S moves past a group that is
// complete. A verified tree writes no S: a node past a boundary recomputes the chain from S through its own path's rows, which is the same sum.
public sealed partial class IlgpuBackend
{
    private readonly FlashKernels _flash = new();

    /// <inheritdoc/>
    protected internal override LayerState CreateFlashLayer(AttentionState owner, int index) => new IlgpuFlashLayer((IlgpuState)owner, index);

    /// <inheritdoc/>
    protected override void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(step);
        int n = step.Tokens;
        if (n == 0) return;
        AttentionSpec spec = layer.Spec;
        var flash = (IlgpuFlashLayer)state;
        StepView view = flash.Tables.View(step, state.Owner);
        FlashMemory memory = flash.Memory;
        FlashScratch scratch = _flash.Scratch(this, spec, n);
        Rows query = Floats(inputs.Query, 0), key = Floats(inputs.Key, 1), value = Floats(inputs.Value, 2), mixed = Output(output);
        (ArrayView<float> alpha, ArrayView<float> taps) = ((FlashWeights)layer.Prepared!).Views;

        Load(ref _flash.Store, FlashStoreKernel)(
            Stream, Threads((long)n * (spec.QueryHeads + 2 * spec.KeyValueHeads)), query, key, view, memory, scratch);
        Load(ref _flash.StoreValues, FlashStoreValuesKernel)(
            Stream, Threads((long)n * spec.KeyValueHeads * spec.ValueDim), value, view, memory, scratch);
        if (spec.Local != LocalKind.None)
        {
            Load(ref _flash.Score, FlashScoreKernel)(
                Stream, Threads((long)n * spec.QueryHeads * spec.GroupSize), view, memory, scratch);
        }

        int rounds = 1;
        for (int e = 0; e < step.Entries; e++)
            if (step[e].Moves && step[e].Count > 0) rounds = Math.Max(rounds, (state.Owner.Length(step[e].Slot) % spec.GroupSize + step[e].Count - 1) / spec.GroupSize + 1);
        for (int round = 0; round < rounds; round++)
        {
            (int first, int count) = TokensOf(step, state.Owner, spec.GroupSize, round);
            Load(ref _flash.Mix, FlashMixKernel)(
                Stream, Threads((long)count * spec.QueryHeads * spec.ValueDim), mixed, alpha, taps, new FlashRound(round, first), view, memory, scratch);
            if (spec.Global)
            {
                Load(ref _flash.Close, FlashCloseKernel)(
                    Stream, Threads((long)step.Entries * spec.KeyValueHeads * spec.HeadDim * spec.ValueDim), FlashAppend.Moving(round), view.Entries, view, memory, scratch.Keys, scratch.Values);
            }
        }

        if (spec.Norm != OutputNorm.None)
        {
            Load(ref _flash.Join, FlashJoinKernel)(
                Stream, Threads((long)n * spec.QueryHeads), mixed, alpha, memory, scratch);
        }

        Load(ref _flash.Tail, FlashTailKernel)(
            Stream, Threads((long)step.Entries * spec.KeyValueHeads * Math.Max(spec.HeadDim, spec.ValueDim)), FlashAppend.Moving(0), view.Entries, view, memory, scratch.Keys, scratch.Values);
    }

    /// <summary>Appends the pending rows of an accepted path: the same kernels, from the rows that wait.</summary>
    internal void FlashAppendPending(IlgpuFlashLayer layer, int slot, int length, ArrayView<int> path, int count)
    {
        AttentionSpec spec = layer.Spec;
        FlashMemory memory = layer.Memory;
        var append = FlashAppend.Pending(slot, length, count);
        var none = new StepView(path, path, path);          // not read: the entry is in the argument
        if (spec.Global)
        {
            for (int group = 0; group < (length % spec.GroupSize + count) / spec.GroupSize; group++)
            {
                Load(ref _flash.Close, FlashCloseKernel)(
                    Stream, Threads((long)spec.KeyValueHeads * spec.HeadDim * spec.ValueDim), append.At(group), path, none, memory, memory.PendingKeys, memory.PendingValues);
            }
        }

        Load(ref _flash.Tail, FlashTailKernel)(
            Stream, Threads((long)spec.KeyValueHeads * Math.Max(spec.HeadDim, spec.ValueDim)), append, path, none, memory, memory.PendingKeys, memory.PendingValues);
    }

    /// <summary>The range of tokens that a round may concern.</summary>
    private static (int First, int Count) TokensOf(Step step, AttentionState state, int groupSize, int round)
    {
        if (round == 0) return (0, step.Tokens);
        int first = int.MaxValue, end = 0;
        for (int e = 0; e < step.Entries; e++)
        {
            StepEntry entry = step[e];
            int from = round * groupSize - state.Length(entry.Slot) % groupSize;
            if (!entry.Moves || from >= entry.Count) continue;
            first = Math.Min(first, entry.Offset + from);
            end = Math.Max(end, entry.Offset + Math.Min(entry.Count, from + groupSize));
        }

        return (first, end - first);
    }

    // One thread a head's vector: q̂ of a query head, or k̂ of a key/value head, twice: beside the step, and beside the slot for a verified tree.
    private static void FlashStoreKernel(Index1D index, Rows query, Rows key, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        int heads = memory.QueryHeads + 2 * memory.KeyValueHeads, token = index / heads, head = index % heads, d = memory.HeadDim;
        if (head < memory.QueryHeads)
        {
            Normalize(query, token, head * d, scratch.Queries, ((long)token * memory.QueryHeads + head) * d, d);
            return;
        }

        head -= memory.QueryHeads;
        int kv = head % memory.KeyValueHeads, entry = step.Entry(token);
        if (memory.HasKeys == 0 || (head >= memory.KeyValueHeads && step.Moves(entry) != 0)) return;
        if (head < memory.KeyValueHeads) Normalize(key, token, kv * d, scratch.Keys, ((long)token * memory.KeyValueHeads + kv) * d, d);
        else Normalize(key, token, kv * d, memory.PendingKeys, (memory.PendingRow(step.Slot(entry), token - step.Offset(entry)) * memory.KeyValueHeads + kv) * d, d);
    }

    // One thread a channel of a value.
    private static void FlashStoreValuesKernel(Index1D index, Rows value, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        int row = memory.KeyValueHeads * memory.ValueDim, token = index / row, channel = index % row, entry = step.Entry(token);
        float x = value[token, channel];
        scratch.Values[(long)token * row + channel] = x;
        if (step.Moves(entry) == 0) memory.PendingValues[memory.PendingRow(step.Slot(entry), token - step.Offset(entry)) * row + channel] = x;
    }

    // One thread a token, query head and place in its group: the local weight of the row there.
    private static void FlashScoreKernel(Index1D index, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        int G = memory.GroupSize, d = memory.HeadDim;
        int place = index % G, rest = index / G, head = rest % memory.QueryHeads, token = rest / memory.QueryHeads, entry = step.Entry(token);
        int length = step.Length(entry), position = length + step.Depth(token), start = position - position % G;
        if (start + place > position) return;
        int kv = head / (memory.QueryHeads / memory.KeyValueHeads);
        long q = ((long)token * memory.QueryHeads + head) * d;
        float dot = 0;
        if (start + place < length)
        {
            long k = (memory.TailKeyRow(step.Slot(entry), place) * memory.KeyValueHeads + kv) * d;
            for (int c = 0; c < d; c++) dot = Fused.MultiplyAdd(scratch.Queries[q + c], memory.Keys[k + c], dot);
        }
        else
        {
            long k = ((long)step.Ancestor(token, start + place - length) * memory.KeyValueHeads + kv) * d;
            for (int c = 0; c < d; c++) dot = Fused.MultiplyAdd(scratch.Queries[q + c], scratch.Keys[k + c], dot);
        }

        scratch.Weights[index] = LocalWeight(memory.Local, dot);
    }

    // One thread a token and output channel: local, global and convolution, each one sum in order.
    private static void FlashMixKernel(Index1D index, Rows output, ArrayView<float> alpha, ArrayView<float> taps, FlashRound round, StepView step, FlashMemory memory, FlashScratch scratch)
    {
        int G = memory.GroupSize, dv = memory.ValueDim, channel = index % (memory.QueryHeads * dv), head = channel / dv, e = channel % dv;
        int token = round.First + index / (memory.QueryHeads * dv), entry = step.Entry(token), slot = step.Slot(entry), length = step.Length(entry);
        int moves = step.Moves(entry), position = length + step.Depth(token), start = position - position % G, block = length - length % G;
        int own = moves != 0 ? (start - block) / G : 0;
        if (own != round.Number) return;
        int kv = head / (memory.QueryHeads / memory.KeyValueHeads);

        float local = 0;
        if (memory.Local != 0)
        {
            long weights = ((long)token * memory.QueryHeads + head) * G;
            for (int p = start; p <= position; p++)
                local = Fused.MultiplyAdd(scratch.Weights[weights + (p - start)], Value(p, block, length, token, slot, kv, e, step, memory, scratch), local);
        }

        float global = 0;
        if (memory.Global != 0)
        {
            long q = ((long)token * memory.QueryHeads + head) * memory.HeadDim;
            for (int c = 0; c < memory.HeadDim; c++)
            {
                float s = memory.State[memory.StateRow(slot, kv, c) + e];
                if (moves == 0)
                {
                    for (int p = block; p < start; p++)
                        s = Fused.MultiplyAdd(Key(p, block, length, token, slot, kv, c, step, memory, scratch), Value(p, block, length, token, slot, kv, e, step, memory, scratch), s);
                }

                global = Fused.MultiplyAdd(scratch.Queries[q + c], s, global);
            }
        }

        float conv = 0;
        for (int t = 0; t < memory.Taps; t++)
        {
            int p = position - t;
            // Before the block's start lies the window; it holds zeros before the text's.
            conv = Fused.MultiplyAdd(taps[head * memory.Taps + t], (p >= block ? Value(p, block, length, token, slot, kv, e, step, memory, scratch) : memory.Values[memory.ValueIndex(slot, p - block, kv) + e]), conv);
        }

        if (memory.Norm == 0)
        {
            output[token, channel] = Fused.MultiplyAdd(memory.Alpha(alpha), global, local) + conv;
            return;
        }

        long at = (long)token * memory.QueryHeads * dv + channel;
        output[token, channel] = local;
        scratch.Global[at] = global;
        scratch.Convolution[at] = conv;
    }

    // One thread a token and query head: the norms run over the head's channels, in order.
    private static void FlashJoinKernel(Index1D index, Rows output, ArrayView<float> alphas, FlashMemory memory, FlashScratch scratch)
    {
        int dv = memory.ValueDim, token = index / memory.QueryHeads, head = index % memory.QueryHeads, from = head * dv;
        int kv = head / (memory.QueryHeads / memory.KeyValueHeads);
        long at = (long)token * memory.QueryHeads * dv + from, value = ((long)token * memory.KeyValueHeads + kv) * dv;
        float alpha = memory.Alpha(alphas), globalNorm = 1, squares = 0;
        if (memory.Norm == (int)OutputNorm.Global)
        {
            for (int e = 0; e < dv; e++) squares = Fused.MultiplyAdd(scratch.Global[at + e], scratch.Global[at + e], squares);
            globalNorm = memory.NormEpsilon + XMath.Sqrt(squares);
        }

        squares = 0;
        for (int e = 0; e < dv; e++)
        {
            float x = Fused.MultiplyAdd(alpha, memory.Norm == (int)OutputNorm.Global ? Divided(scratch.Global[at + e], globalNorm) : scratch.Global[at + e], output[token, from + e]);
            if (memory.Norm == (int)OutputNorm.Castling) x = 0.5f * scratch.Values[value + e] + x / XMath.PI;
            squares = Fused.MultiplyAdd(x, x, squares);
            output[token, from + e] = x;
        }

        float norm = XMath.Sqrt(squares) + (memory.Norm == (int)OutputNorm.Together ? memory.NormEpsilon : 0);
        for (int e = 0; e < dv; e++)
        {
            float x = output[token, from + e];
            output[token, from + e] = (memory.Norm == (int)OutputNorm.Global ? x : Divided(x, norm)) + scratch.Convolution[at + e];
        }
    }

    // One thread an element of S: one chain from the old S through the rows of a group that is complete, in order.
    private static void FlashCloseKernel(Index1D index, FlashAppend append, ArrayView<int> path, StepView step, FlashMemory memory, ArrayView<float> newKeys, ArrayView<float> newValues)
    {
        int d = memory.HeadDim, dv = memory.ValueDim, G = memory.GroupSize;
        int e = index % dv, rest = index / dv, c = rest % d;
        rest /= d;
        int kv = rest % memory.KeyValueHeads, entry = rest / memory.KeyValueHeads;
        FlashRun run = append.Run(entry, step, memory);
        int block = run.Length - run.Length % G, start = block + append.Round * G;
        if (start + G > run.Length + run.Count) return;
        long at = memory.StateRow(run.Slot, kv, c) + e;
        float s = memory.State[at];
        for (int p = start; p < start + G; p++)
        {
            if (p < run.Length)
            {
                s = Fused.MultiplyAdd(memory.Keys[(memory.TailKeyRow(run.Slot, p - block) * memory.KeyValueHeads + kv) * d + c], memory.Values[memory.ValueIndex(run.Slot, p - block, kv) + e], s);
                continue;
            }

            long row = (run.Row(p - run.Length, path) * memory.KeyValueHeads) + kv;
            s = Fused.MultiplyAdd(newKeys[row * d + c], newValues[row * dv + e], s);
        }

        memory.State[at] = s;
    }

    // One thread a channel of a key/value head: the window and the tail of the new length. What moves down moves in order, so that nothing is overwritten unread.
    private static void FlashTailKernel(Index1D index, FlashAppend append, ArrayView<int> path, StepView step, FlashMemory memory, ArrayView<float> newKeys, ArrayView<float> newValues)
    {
        int G = memory.GroupSize, channels = XMath.Max(memory.HeadDim, memory.ValueDim);
        int channel = index % channels, rest = index / channels, kv = rest % memory.KeyValueHeads, entry = rest / memory.KeyValueHeads;
        FlashRun run = append.Run(entry, step, memory);
        if (run.Count == 0) return;
        int block = run.Length - run.Length % G, end = run.Length + run.Count, newBlock = end - end % G;
        if (channel < memory.ValueDim)
        {
            // Rows of the window and the tail, by their place from the new block's start; those that stay where they are need no copy.
            int first = newBlock == block ? run.Length - block : -memory.Window;
            for (int place = first; place < end - newBlock; place++)
            {
                int p = newBlock + place;
                float x = p < run.Length
                    ? memory.Values[memory.ValueIndex(run.Slot, p - block, kv) + channel]
                    : newValues[(run.Row(p - run.Length, path) * memory.KeyValueHeads + kv) * memory.ValueDim + channel];
                memory.Values[memory.ValueIndex(run.Slot, place, kv) + channel] = x;
            }
        }

        if (memory.HasKeys != 0 && channel < memory.HeadDim)
        {
            for (int p = XMath.Max(newBlock, run.Length); p < end; p++)
            {
                memory.Keys[(memory.TailKeyRow(run.Slot, p - newBlock) * memory.KeyValueHeads + kv) * memory.HeadDim + channel] =
                    newKeys[(run.Row(p - run.Length, path) * memory.KeyValueHeads + kv) * memory.HeadDim + channel];
            }
        }
    }

    /// <summary>k̂ at a position from the committed block's start on: committed, or on the token's own path.</summary>
    private static float Key(int position, int block, int length, int token, int slot, int kv, int c, StepView step, FlashMemory memory, FlashScratch scratch) => position < length
        ? memory.Keys[(memory.TailKeyRow(slot, position - block) * memory.KeyValueHeads + kv) * memory.HeadDim + c]
        : scratch.Keys[((long)step.Ancestor(token, position - length) * memory.KeyValueHeads + kv) * memory.HeadDim + c];

    /// <summary>v likewise.</summary>
    private static float Value(int position, int block, int length, int token, int slot, int kv, int e, StepView step, FlashMemory memory, FlashScratch scratch) => position < length
        ? memory.Values[memory.ValueIndex(slot, position - block, kv) + e]
        : scratch.Values[((long)step.Ancestor(token, position - length) * memory.KeyValueHeads + kv) * memory.ValueDim + e];

    private static float LocalWeight(int kind, float dot)
    {
        if (kind == (int)LocalKind.Relu2) return dot > 0 ? dot * dot : XMath.IsNaN(dot) ? dot : 0;
        float weight = 1 - XMath.Acos(0.98f * dot) / XMath.PI;
        float square = weight * weight, fourth = square * square;
        return fourth * fourth;
    }

    /// <summary>x / ‖x‖ of one vector; where its squares would leave float32's range it is scaled first, by a power of two.</summary>
    private static void Normalize(Rows rows, int row, int from, ArrayView<float> to, long at, int count)
    {
        float largest = 0, squares = 0;
        for (int c = 0; c < count; c++) largest = XMath.Max(largest, XMath.Abs(rows[row, from + c]));
        float scale = largest < 9.0949470e-13f ? 7.9228163e28f : largest > 1.0995116e12f ? 8.4703295e-22f : 1;       // below 2^-40: 2^96; above 2^40: 2^-70
        for (int c = 0; c < count; c++)
        {
            float x = rows[row, from + c] * scale;
            squares = Fused.MultiplyAdd(x, x, squares);
        }

        float norm = XMath.Sqrt(squares);
        for (int c = 0; c < count; c++) to[at + c] = Divided(rows[row, from + c] * scale, norm);
    }

    /// <summary>x / norm; a zero vector stays zero.</summary>
    private static float Divided(float x, float norm) => norm == 0 ? 0 : x / norm;

    /// <summary>The compiled kernels, and scratch memory that one call fills and reads.</summary>
    private sealed class FlashKernels : IDisposable
    {
        public Action<AcceleratorStream, Index1D, Rows, Rows, StepView, FlashMemory, FlashScratch>? Store;
        public Action<AcceleratorStream, Index1D, Rows, StepView, FlashMemory, FlashScratch>? StoreValues;
        public Action<AcceleratorStream, Index1D, StepView, FlashMemory, FlashScratch>? Score;
        public Action<AcceleratorStream, Index1D, Rows, ArrayView<float>, ArrayView<float>, FlashRound, StepView, FlashMemory, FlashScratch>? Mix;
        public Action<AcceleratorStream, Index1D, Rows, ArrayView<float>, FlashMemory, FlashScratch>? Join;
        public Action<AcceleratorStream, Index1D, FlashAppend, ArrayView<int>, StepView, FlashMemory, ArrayView<float>, ArrayView<float>>? Close, Tail;
        private DeviceArray<float>? _queries, _keys, _values, _weights, _global, _convolution;

        public FlashScratch Scratch(IlgpuBackend backend, AttentionSpec spec, long tokens)
        {
            bool norm = spec.Norm != OutputNorm.None;
            long outputs = norm ? tokens * spec.QueryHeads * spec.ValueDim : 1;
            return new FlashScratch(
                (_queries ??= new(backend)).Reserve(tokens * spec.QueryHeads * spec.HeadDim),
                (_keys ??= new(backend)).Reserve(tokens * spec.KeyValueHeads * spec.HeadDim),
                (_values ??= new(backend)).Reserve(tokens * spec.KeyValueHeads * spec.ValueDim),
                (_weights ??= new(backend)).Reserve(spec.Local == LocalKind.None ? 1 : tokens * spec.QueryHeads * spec.GroupSize),
                (_global ??= new(backend)).Reserve(outputs),
                (_convolution ??= new(backend)).Reserve(outputs));
        }

        public void Dispose()
        {
            foreach (DeviceArray<float>? array in (DeviceArray<float>?[])[_queries, _keys, _values, _weights, _global, _convolution]) array?.Dispose();
        }
    }
}
