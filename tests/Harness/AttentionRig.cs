using Treeline.Kernels;

namespace Treeline.Tests.Harness;

/// <summary>One entry of a step and its tokens.</summary>
internal sealed record Feed(int Slot, TokenTree Tree, bool Moves, Tokens Tokens)
{
    public static Feed Advance(int slot, Tokens tokens) => new(slot, TokenTree.Path(tokens.Count), true, tokens);

    public static Feed Verify(int slot, TokenTree tree, Tokens tokens) => new(slot, tree, false, tokens);
}

/// <summary>A few attention layers over one state on one backend, fed with host data: the same tokens to every layer.</summary>
internal sealed class AttentionRig : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly ElementType _inputType;
    private readonly ElementType _outputType;

    public AttentionRig(KernelBackend backend, IReadOnlyList<AttentionSpec> specs, int seed = 1, int slots = 5, int capacity = 4096,
        IReadOnlyList<Dictionary<string, float[]>>? weights = null, ElementType inputType = ElementType.Float32, ElementType outputType = ElementType.Float32)
    {
        Backend = backend;
        Specs = specs;
        _inputType = inputType;
        _outputType = outputType;
        State = Own(backend.CreateState(specs, slots, capacity));
        Layers = [.. specs.Select((spec, i) => Own(backend.Bind(spec, Upload(spec, weights?[i] ?? Weights(spec, seed + i)))))];
    }

    public KernelBackend Backend { get; }

    public IReadOnlyList<AttentionSpec> Specs { get; }

    public AttentionState State { get; }

    public AttentionLayer[] Layers { get; }

    /// <summary>The last step fed; the next one is fed to it, or to one that takes its place.</summary>
    public Step Step { get; set; } = new();

    /// <summary>Weights of a layer by name, from a seed; α is neither 0 nor 1.</summary>
    public static Dictionary<string, float[]> Weights(AttentionSpec spec, int seed)
    {
        var random = new Random(seed);
        return Attentions.Find(spec.Attention)!.Weights(spec).ToDictionary(weight => weight.Name,
            weight => weight.Name == "alpha" ? [-0.62f] : random.Floats(weight.Shape.Aggregate(1, (product, size) => product * size), 0.3));
    }

    /// <summary>Feeds a step to all layers and completes it; the outputs of each entry, layer after layer, <c>[layers, tokens, queryHeads, valueDim]</c>.</summary>
    public double[][] Run(params Feed[] feeds)
    {
        Step.Clear();
        foreach (Feed feed in feeds) Step.Add(feed.Slot, feed.Tree, feed.Moves);
        List<double>[] outputs = [.. feeds.Select(_ => new List<double>())];
        for (int layer = 0; layer < Layers.Length; layer++)
        {
            double[] all = Attend(layer, feeds);
            int row = Specs[layer].QueryHeads * Specs[layer].ValueDim;
            for (int i = 0; i < feeds.Length; i++) outputs[i].AddRange(all[(Step.Offsets[i] * row)..(Step.Offsets[i + 1] * row)]);
        }

        State.Complete(Step);
        return [.. outputs.Select(output => output.ToArray())];
    }

    /// <summary>One layer's output for a step whose entries have been added.</summary>
    public double[] Attend(int layer, params Feed[] feeds)
    {
        AttentionSpec spec = Specs[layer];
        Tokens tokens = feeds.Aggregate(feeds[0].Tokens.Range(0, 0), (all, feed) => all.Then(feed.Tokens));
        using DeviceTensor query = Upload(tokens.Query, tokens.Count, spec.QueryHeads, spec.HeadDim);
        using DeviceTensor key = Upload(tokens.Key, tokens.Count, spec.KeyValueHeads, spec.HeadDim);
        using DeviceTensor value = Upload(tokens.Value, tokens.Count, spec.KeyValueHeads, spec.ValueDim);
        using DeviceTensor output = Backend.Allocate(_outputType, tokens.Count, spec.QueryHeads, spec.ValueDim);
        Poison(output);
        Backend.Attend(Layers[layer], State[layer], Step, new AttentionInputs(query, key, value), output);
        return _outputType == ElementType.Float64 ? Backend.Download<double>(output) : Close.Widen(Backend.Download<float>(output));
    }

    /// <summary>Feeds a path in pieces of its own.</summary>
    public double[][] Advance(int slot, Tokens tokens, params ReadOnlySpan<int> pieces)
    {
        List<double[]> outputs = [];
        int at = 0;
        foreach (int piece in pieces)
        {
            outputs.Add(Run(Feed.Advance(slot, tokens.Range(at, at + piece)))[0]);
            at += piece;
        }

        return [.. outputs];
    }

    /// <summary>Commits one entry's path of the last step, nothing of the others.</summary>
    public void Commit(int entry, params ReadOnlySpan<int> path)
    {
        var paths = new int[Step.Entries][];
        paths.AsSpan().Fill([]);
        paths[entry] = path.ToArray();
        Commit(paths);
    }

    /// <summary>Commits a path of each entry of the last step.</summary>
    public void Commit(int[][] paths) => Backend.Commit(State, Step, Accepted(paths));

    /// <summary>The same with the paths in the backend's memory.</summary>
    public void CommitOnDevice(params int[][] paths)
    {
        using DeviceTensor accepted = Backend.Upload<int>(Accepted(paths), Step.Entries, Step.MaxDepth);
        Backend.Commit(State, Step, accepted);
    }

    public byte[] Snapshot(int slot)
    {
        using var bytes = new MemoryStream();
        State.Snapshot(slot, bytes);
        return bytes.ToArray();
    }

    public void Restore(int slot, byte[] snapshot)
    {
        using var bytes = new MemoryStream(snapshot);
        State.Restore(slot, bytes);
    }

    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--) _owned[i].Dispose();
    }

    /// <summary>Paths as a commit takes them, <c>[entries, maxDepth]</c>.</summary>
    private int[] Accepted(int[][] paths)
    {
        var accepted = new int[Step.Entries * Step.MaxDepth];
        accepted.AsSpan().Fill(-1);
        for (int i = 0; i < paths.Length; i++) paths[i].CopyTo(accepted.AsSpan(i * Step.MaxDepth));
        return accepted;
    }

    private Dictionary<string, DeviceTensor> Upload(AttentionSpec spec, Dictionary<string, float[]> weights) => weights.ToDictionary(weight => weight.Key,
        weight => Own(Backend.Upload<float>(weight.Value, [.. Attentions.Find(spec.Attention)!.Weights(spec).Single(wanted => wanted.Name == weight.Key).Shape])));

    private DeviceTensor Upload(float[] numbers, params ReadOnlySpan<int> shape) => _inputType switch
    {
        ElementType.Float32 => Backend.Upload<float>(numbers, shape),
        ElementType.BFloat16 => Backend.Upload<BFloat16>(Array.ConvertAll(numbers, x => (BFloat16)x), shape),
        ElementType.Float16 => Backend.Upload<Half>(Array.ConvertAll(numbers, x => (Half)x), shape),
        _ => throw new ArgumentOutOfRangeException(nameof(numbers), _inputType, "no such inputs"),
    };

    // What an op leaves unwritten must not look like a result.
    private void Poison(DeviceTensor output)
    {
        if (_outputType == ElementType.Float64) Backend.Write<double>(output, Enumerable.Repeat(double.NaN, (int)output.Count).ToArray());
        else Backend.Write<float>(output, Enumerable.Repeat(float.NaN, (int)output.Count).ToArray());
    }

    private T Own<T>(T disposable) where T : IDisposable
    {
        _owned.Add(disposable);
        return disposable;
    }
}
