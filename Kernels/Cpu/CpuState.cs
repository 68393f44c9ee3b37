namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => new CpuState(this, specs, slots, capacity);
}

/// <summary>All layers' parts; what is the attention's own lies in its <see cref="CpuLayer"/>.</summary>
internal sealed unsafe class CpuState : AttentionState
{
    private readonly CpuBackend _backend;
    private readonly CpuLayer[] _layers;

    public CpuState(CpuBackend backend, IReadOnlyList<AttentionSpec> specs, int slots, int capacity) : base(backend, specs, slots, capacity)
    {
        _backend = backend;
        _layers = new CpuLayer[specs.Count];
        try
        {
            for (int i = 0; i < _layers.Length; i++) _layers[i] = (CpuLayer)Attentions.Find(specs[i].Attention)!.CreateLayer(backend, this, i);
        }
        catch
        {
            Dispose(true);
            throw;
        }
    }

    public override ElementType StateType => ElementType.Float32;

    public override LayerState this[int layer] => _layers[layer];

    public override long Bytes(int slot)
    {
        int length = Length(slot);
        long bytes = 0;
        foreach (CpuLayer layer in _layers) bytes += layer.Bytes(length);
        return bytes;
    }

    protected override void BeginCore(Step step)
    {
        for (int i = 0; i < step.Entries; i++)
            foreach (CpuLayer layer in _layers) layer.Reserve(step[i], Length(step[i].Slot));
    }

    protected override void ForkCore(int from, int to)
    {
        foreach (CpuLayer layer in _layers) layer.Fork(from, to, Length(from));
    }

    protected override void ResetCore(int slot)
    {
        foreach (CpuLayer layer in _layers) layer.Reset(slot);
    }

    protected override void RewindCore(int slot, int length)
    {
        foreach (CpuLayer layer in _layers) layer.Rewind(slot, length);
    }

    protected override void RestoreCore(int slot, int length)
    {
        foreach (CpuLayer layer in _layers) layer.Restore(slot, length);
    }

    protected override void CommitCore(Step step, ReadOnlySpan<int> accepted)
    {
        for (int entry = 0; entry < step.Entries; entry++)
        {
            ReadOnlySpan<int> path = PathOf(step, entry, accepted);
            if (path.IsEmpty) continue;
            fixed (int* nodes = path)
            {
                int slot = step[entry].Slot;
                var job = new AppendJob(_layers, slot, Length(slot), nodes, path.Length);
                _backend.Threads.For(_layers.Length, ref job);
            }
        }
    }

    protected internal override void ReadFieldCore(int layer, int slot, StateField field, Span<byte> to)
    {
        fixed (byte* numbers = to) _layers[layer].Read(slot, field, Length(slot), (float*)numbers);
    }

    protected override void WriteFieldCore(int layer, int slot, StateField field, int length, ReadOnlySpan<byte> from)
    {
        fixed (byte* numbers = from) _layers[layer].Write(slot, field, length, (float*)numbers);
    }

    protected override void Dispose(bool disposing)
    {
        foreach (CpuLayer? layer in _layers) layer?.Dispose();
    }

    private readonly struct AppendJob(CpuLayer[] layers, int slot, int length, int* path, int count) : IJob
    {
        public void Run(int part, int worker) => layers[part].Append(slot, length, path, count);
    }
}
