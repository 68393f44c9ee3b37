namespace Treeline.Kernels;

internal abstract unsafe partial class CpuKernels
{
    /// <summary>One key/value head of an entry that moves: a group at a time, its rows are appended, its queries answered, then S moves.</summary>
    public abstract void FlashAdvance(in FlashCall call, StepEntry entry, int head, float* scratch);

    /// <summary>One key/value head of an entry that does not move.</summary>
    public abstract void FlashVerify(in FlashCall call, StepEntry entry, int head, float* scratch);

    /// <summary>Appends the pending rows of an accepted path.</summary>
    public abstract void FlashAppend(FlashLayer layer, int slot, int head, int length, int* path, int count);
}

/// <summary>What advancing and verifying have in common; each sum is written once, so both give the same bits.</summary>
internal sealed unsafe partial class CpuKernels<S, V>
{
    /// <summary>k̂ of a token into column <paramref name="column"/> of transposed keys.</summary>
    private void LoadKey(in FlashCall call, int token, int head, float* row, float* keys, nint stride, int column)
    {
        int dim = call.Spec.HeadDim;
        Widen(call.Key.Type, call.Key.At(token, (nint)head * dim), dim, row);
        Normalize(row, dim);
        for (int d = 0; d < dim; d++) keys[d * stride + column] = row[d];
    }

    /// <summary>A token's value, padded with zeros.</summary>
    private void LoadValue(in FlashCall call, int token, int head, float* to)
    {
        int dim = call.Spec.ValueDim;
        Widen(call.Value.Type, call.Value.At(token, (nint)head * dim), dim, to);
        for (int e = dim; e < call.Layer.ValueStride; e++) to[e] = 0;
    }

    /// <summary>q̂ of a token, for all query heads of a key/value head.</summary>
    private void LoadQueries(in FlashCall call, int token, int head, float* to)
    {
        int dim = call.Spec.HeadDim;
        for (int r = 0; r < call.Heads; r++, to += call.QueryStride)
        {
            Widen(call.Query.Type, call.Query.At(token, ((nint)head * call.Heads + r) * dim), dim, to);
            Normalize(to, dim);
        }
    }

    private void LoadTaps(in FlashCall call, int head, float* to)
    {
        if (call.Spec.ConvTaps == 0) return;
        for (int r = 0; r < call.Heads; r++, to += call.Spec.ConvTaps)
            Widen(call.Taps.Type, call.Taps.At(head * call.Heads + r, 0), call.Spec.ConvTaps, to);
    }

    /// <summary>Scores become weights: whole vectors, the lanes past the last key too.</summary>
    private static void Weigh(LocalKind kind, float* scores, nint stride, int rows, int columns)
    {
        for (int i = 0; i < rows; i++, scores += stride)
        {
            if (kind == LocalKind.Relu2)
                for (int j = 0; j < columns; j += S.Width) S.Store(scores + j, Relu2(S.Load(scores + j)));
            else
                for (int j = 0; j < columns; j += S.Width) S.Store(scores + j, Yoso8(S.Load(scores + j)));
        }
    }

    private static V Relu2(V score)
    {
        V positive = S.Max(score, S.Broadcast(0));
        return S.Multiply(positive, positive);
    }

    /// <summary>(1 - acos(0.98 s)/π)⁸.</summary>
    private static V Yoso8(V score)
    {
        V angle = Acos(S.Multiply(score, S.Broadcast(0.98f)));
        V p = S.Subtract(S.Broadcast(1), S.Divide(angle, S.Broadcast(MathF.PI)));
        p = S.Multiply(p, p);
        p = S.Multiply(p, p);
        return S.Multiply(p, p);
    }

    /// <summary>acos, within 2 units in the last place; |x| ≤ 1.</summary>
    private static V Acos(V x)
    {
        V zero = S.Broadcast(0), half = S.Broadcast(0.5f);
        V magnitude = S.Max(x, S.Subtract(zero, x));
        // acos(x) = 2 asin(√((1 - x)/2)) where x is large, π/2 - asin(x) where it is small: asin sees 0 to 1/2 either way.
        V square = S.WhereGreater(magnitude, half, S.Multiply(S.Subtract(S.Broadcast(1), magnitude), half), S.Multiply(magnitude, magnitude));
        V small = S.WhereGreater(magnitude, half, S.Sqrt(square), magnitude);
        V p = S.Broadcast(4.2163199048e-2f);
        p = S.MultiplyAdd(p, square, S.Broadcast(2.4181311049e-2f));
        p = S.MultiplyAdd(p, square, S.Broadcast(4.5470025998e-2f));
        p = S.MultiplyAdd(p, square, S.Broadcast(7.4953002686e-2f));
        p = S.MultiplyAdd(p, square, S.Broadcast(1.6666752422e-1f));
        V asin = S.MultiplyAdd(S.Multiply(p, square), small, small);
        V twice = S.Add(asin, asin);
        V large = S.WhereGreater(zero, x, S.Subtract(S.Broadcast(MathF.PI), twice), twice);
        V near = S.WhereGreater(zero, x, S.Add(S.Broadcast(MathF.PI / 2), asin), S.Subtract(S.Broadcast(MathF.PI / 2), asin));
        return S.WhereGreater(magnitude, half, large, near);
    }

    /// <summary>Joins a row's three sums and writes the output; the only place that does.</summary>
    private static void Join(in FlashCall call, float* local, float* global, float* conv, float* value, float* output)
    {
        AttentionSpec spec = call.Spec;
        int dim = spec.ValueDim, stride = call.Layer.ValueStride;
        if (spec.Norm == OutputNorm.Global) DivideBy(global, dim, spec.NormEpsilon + MathF.Sqrt(SumOfSquares(global, dim)));
        V alpha = S.Broadcast(call.Alpha);
        for (int e = 0; e < stride; e += S.Width) S.Store(local + e, S.MultiplyAdd(alpha, S.Load(global + e), S.Load(local + e)));
        if (spec.Norm == OutputNorm.Together)
        {
            DivideBy(local, dim, spec.NormEpsilon + MathF.Sqrt(SumOfSquares(local, dim)));
        }
        else if (spec.Norm == OutputNorm.Castling)
        {
            V half = S.Broadcast(0.5f), pi = S.Broadcast(MathF.PI);
            for (int e = 0; e < stride; e += S.Width) S.Store(local + e, S.MultiplyAdd(half, S.Load(value + e), S.Divide(S.Load(local + e), pi)));
            Normalize(local, dim);
        }

        if (spec.ConvTaps > 0)
            for (int e = 0; e < stride; e += S.Width) S.Store(local + e, S.Add(S.Load(local + e), S.Load(conv + e)));
        Buffer.MemoryCopy(local, output, (nint)dim * sizeof(float), (nint)dim * sizeof(float));
    }

    /// <summary>A group is complete: S takes its rows, and the window its last values.</summary>
    private static void FlashFold(FlashLayer layer, int slot, int head)
    {
        AttentionSpec spec = layer.Spec;
        int group = spec.GroupSize, stride = layer.ValueStride, window = Math.Max(0, spec.ConvTaps - 1);
        float* values = layer.Values(slot, head);
        if (spec.Global) Product(layer.Keys(slot, head), layer.KeyStride, values, stride, default(RowsInOrder), layer.State(slot, head), stride, spec.HeadDim, stride, group, add: true);
        nint bytes = (nint)window * stride * sizeof(float);
        Buffer.MemoryCopy(values + (nint)(group - window) * stride, values - (nint)window * stride, bytes, bytes);
    }

    public override void FlashAppend(FlashLayer layer, int slot, int head, int length, int* path, int count)
    {
        AttentionSpec spec = layer.Spec;
        int group = spec.GroupSize, stride = layer.ValueStride, at = length % group;
        float* keys = layer.Keys(slot, head), values = layer.Values(slot, head);
        float* pendingKeys = layer.Pending.Keys(slot, head), pendingValues = layer.Pending.Values(slot, head);
        nint bytes = (nint)stride * sizeof(float);
        for (int i = 0; i < count; i++)
        {
            if (layer.HasKeys)
                for (int d = 0; d < spec.HeadDim; d++) keys[(nint)d * layer.KeyStride + at] = pendingKeys[(nint)d * layer.Pending.Stride(slot) + path[i]];
            Buffer.MemoryCopy(pendingValues + (nint)path[i] * stride, values + (nint)at * stride, bytes, bytes);
            if (++at < group) continue;
            FlashFold(layer, slot, head);
            at = 0;
        }
    }
}
