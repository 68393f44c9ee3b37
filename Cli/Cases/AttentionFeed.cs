using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>One attention layer with its state: feeds rows to it and collects what comes out.</summary>
internal sealed class AttentionFeed : IDisposable
{
    private readonly KernelBackend _backend;
    private readonly AttentionSpec _spec;
    private readonly Dictionary<string, DeviceTensor> _weights;
    private readonly AttentionLayer _layer;
    private readonly AttentionState _state;
    private readonly Step _step = new();

    public AttentionFeed(KernelBackend backend, GroupedAttention attention, int capacity)
    {
        _backend = backend;
        _spec = attention.Spec;
        _weights = attention.Upload(backend);
        _layer = backend.Bind(_spec, _weights);
        _state = backend.CreateState([_spec], slots: 1, Math.Max(1, capacity));
    }

    /// <summary>Feeds rows that move the state, at once or one by one; returns their outputs.</summary>
    public float[] Advance(Rows rows, CaseOptions options, CancellationToken cancellation)
    {
        var output = new float[rows.Tokens * _spec.QueryHeads * _spec.ValueDim];
        if (rows.Tokens == 0) return output;
        int chunk = options.Stepwise ? 1 : rows.Tokens;
        for (int at = 0; at < rows.Tokens; at += chunk)
        {
            cancellation.ThrowIfCancellationRequested();
            _step.Clear();
            _step.Advance(0, chunk);
            Attend(rows.Slice(at, chunk), output.AsSpan(at * _spec.QueryHeads * _spec.ValueDim, chunk * _spec.QueryHeads * _spec.ValueDim));
            options.Progress?.Invoke(at + chunk, rows.Tokens);
        }

        return output;
    }

    /// <summary>Verifies a tree, then moves past the accepted nodes; returns the outputs of all nodes.</summary>
    public float[] VerifyAndCommit(Rows rows, TokenTree tree, ReadOnlySpan<int> accepted)
    {
        var output = new float[rows.Tokens * _spec.QueryHeads * _spec.ValueDim];
        if (rows.Tokens == 0) return output;
        _step.Clear();
        _step.Verify(0, tree);
        Attend(rows, output);
        if (accepted.Length > _step.MaxDepth)
            throw new ArgumentException($"accepted: expected at most {_step.MaxDepth} nodes, the depth of the tree, got {accepted.Length}", nameof(accepted));
        var path = new int[_step.MaxDepth];
        path.AsSpan().Fill(-1);
        accepted.CopyTo(path);
        _backend.Commit(_state, _step, path);
        return output;
    }

    public void Dispose()
    {
        _state.Dispose();
        _layer.Dispose();
        foreach (DeviceTensor weight in _weights.Values) weight.Dispose();
    }

    private void Attend(Rows rows, Span<float> output)
    {
        using DeviceTensor query = _backend.Upload<float>(rows.Query, rows.Tokens, _spec.QueryHeads, _spec.HeadDim);
        using DeviceTensor key = _backend.Upload<float>(rows.Key, rows.Tokens, _spec.KeyValueHeads, _spec.HeadDim);
        using DeviceTensor value = _backend.Upload<float>(rows.Value, rows.Tokens, _spec.KeyValueHeads, _spec.ValueDim);
        using DeviceTensor result = _backend.Allocate(ElementType.Float32, rows.Tokens, _spec.QueryHeads, _spec.ValueDim);
        _backend.Attend(_layer, _state[0], _step, new AttentionInputs(query, key, value), result);
        _state.Complete(_step);
        _backend.Read(result, output);
    }

    /// <summary>Query, key and value of some tokens.</summary>
    public readonly ref struct Rows
    {
        public required int Tokens { get; init; }

        public required ReadOnlySpan<float> Query { get; init; }

        public required ReadOnlySpan<float> Key { get; init; }

        public required ReadOnlySpan<float> Value { get; init; }

        /// <summary>The rows of a case's tensors, checked against the spec.</summary>
        /// <exception cref="ToolException">A tensor is missing or of another shape.</exception>
        public static Rows Read(CaseFile file, string prefix, AttentionSpec spec)
        {
            int tokens = file.Require(prefix + "q").Shape is [var n, ..] ? n : 0;
            return new Rows
            {
                Tokens = tokens,
                Query = file.Floats(prefix + "q", tokens, spec.QueryHeads, spec.HeadDim),
                Key = file.Floats(prefix + "k", tokens, spec.KeyValueHeads, spec.HeadDim),
                Value = file.Floats(prefix + "v", tokens, spec.KeyValueHeads, spec.ValueDim),
            };
        }

        public Rows Slice(int start, int count) => new()
        {
            Tokens = count,
            Query = Query.Slice(start * (Query.Length / Tokens), count * (Query.Length / Tokens)),
            Key = Key.Slice(start * (Key.Length / Tokens), count * (Key.Length / Tokens)),
            Value = Value.Slice(start * (Value.Length / Tokens), count * (Value.Length / Tokens)),
        };
    }
}
