namespace Treeline.Kernels;

/// <summary>One layer's part of an <see cref="AttentionState"/>.</summary>
public abstract class LayerState
{
    /// <summary>Creates the layer's part.</summary>
    /// <param name="owner">The whole.</param>
    /// <param name="index">Which layer.</param>
    protected LayerState(AttentionState owner, int index)
    {
        Owner = owner;
        Index = index;
    }

    /// <summary>The whole state.</summary>
    public AttentionState Owner { get; }

    /// <summary>Which layer this is.</summary>
    public int Index { get; }

    /// <summary>What the layer computes.</summary>
    public AttentionSpec Spec => Owner.Specs[Index];
}

/// <summary>The past of several sequences (slots), all layers of a model, as attention needs it.</summary>
/// <remarks>
/// A slot's state is a value: it can be forked, saved, restored, reset. Recurrent attentions hold a constant size per slot, which moves at fixed positions only
/// (the last multiple of the block length, with the rows since then beside it); softmax grows by pages up to the capacity.
/// What a verification writes is pending: not part of the value, dropped by the slot's next step unless <see cref="KernelBackend.Commit(AttentionState, Step, ReadOnlySpan{int})"/> takes a path of it.
/// </remarks>
public abstract partial class AttentionState : IDisposable
{
    private readonly int[] _lengths;
    private readonly long[] _stamps;                        // the step that last began with the slot
    private readonly bool[] _broken;
    private long _stamp;

    /// <summary>Creates the backend-independent side; all slots are empty.</summary>
    /// <param name="backend">Whose memory holds it.</param>
    /// <param name="specs">One spec a layer; checked by <see cref="KernelBackend.CreateState"/>.</param>
    /// <param name="slots">Number of slots.</param>
    /// <param name="capacity">Most positions a slot may hold where a layer's state grows.</param>
    protected AttentionState(KernelBackend backend, IReadOnlyList<AttentionSpec> specs, int slots, int capacity)
    {
        ArgumentNullException.ThrowIfNull(specs);
        Backend = backend;
        Specs = [.. specs];
        Slots = slots;
        Capacity = capacity;
        Fields = [.. specs.Select(spec => Attentions.Find(spec.Attention)!.Fields(spec))];
        Grows = Fields.Any(fields => fields.Any(field => field.Rows == FieldRows.Past));
        _lengths = new int[slots];
        _stamps = new long[slots];
        _broken = new bool[slots];
    }

    /// <summary>Whose memory holds it.</summary>
    public KernelBackend Backend { get; }

    /// <summary>One spec a layer.</summary>
    public IReadOnlyList<AttentionSpec> Specs { get; }

    /// <summary>Number of layers.</summary>
    public int Layers => Specs.Count;

    /// <summary>Number of slots.</summary>
    public int Slots { get; }

    /// <summary>Most positions a slot may hold where <see cref="Grows"/>.</summary>
    public int Capacity { get; }

    /// <summary>True where a layer's state grows with the sequence (softmax).</summary>
    public bool Grows { get; }

    /// <summary>True once disposed.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>The named parts of each layer's state.</summary>
    internal IReadOnlyList<StateField>[] Fields { get; }

    /// <summary>One layer's part.</summary>
    /// <param name="layer">Which layer.</param>
    public abstract LayerState this[int layer] { get; }

    /// <summary>What the numbers of the state are stored as.</summary>
    public abstract ElementType StateType { get; }

    /// <summary>Committed tokens of a slot.</summary>
    /// <param name="slot">The slot.</param>
    /// <exception cref="ArgumentException">The slot does not exist; or a path that was committed from the device was none of its tree, which is reported once (<see cref="KernelBackend.Commit(AttentionState, Step, DeviceTensor)"/>).</exception>
    public int Length(int slot)
    {
        CheckedSlot(slot);
        if (IsUnread(slot))
        {
            using KernelBackend.Call call = Enter(nameof(Length));
            Settle();
        }

        return _lengths[slot];
    }

    /// <summary>True where a step has moved some layers of the slot and not all: it failed, was given up, or is between its layers; only <see cref="Reset"/> and <see cref="Restore"/> accept the slot.</summary>
    /// <param name="slot">The slot.</param>
    public bool IsBroken(int slot) => _broken[CheckedSlot(slot)];

    /// <summary>Bytes that a slot's value occupies at its present length: constant for recurrent attentions.</summary>
    /// <param name="slot">The slot.</param>
    public abstract long Bytes(int slot);

    /// <summary>Begins a step: checks its slots and capacity, reserves room, fixes positions. Nothing has moved if this throws.</summary>
    /// <param name="step">The step; its entries are fixed from now on.</param>
    /// <exception cref="ArgumentException">A slot does not exist.</exception>
    /// <exception cref="BrokenSlotException">A slot was left half-written by a failed step.</exception>
    /// <exception cref="OutOfCapacityException">A slot would pass <see cref="Capacity"/>.</exception>
    /// <exception cref="InvalidOperationException">The step has begun already.</exception>
    public void Begin(Step step)
    {
        ArgumentNullException.ThrowIfNull(step);
        using KernelBackend.Call call = Enter(nameof(Begin));
        BeginChecked(step);
    }

    /// <summary>Ends a step: the committed lengths move past the tokens of the entries that move.</summary>
    /// <param name="step">A step that every layer has attended.</param>
    /// <exception cref="InvalidOperationException">A layer is missing, or the step is not this state's, or it has failed.</exception>
    public void Complete(Step step)
    {
        ArgumentNullException.ThrowIfNull(step);
        using KernelBackend.Call call = Enter(nameof(Complete));
        RequireStep(step, Step.Phase.Begun);
        if (step.LayersDone != Layers)
            throw new InvalidOperationException($"step: layer {Array.IndexOf(step.LayerDone, false, 0, Layers)} of {Layers} has not attended; complete a step once after its last layer");
        for (int i = 0; i < step.Entries; i++)
        {
            if (!step[i].Moves) continue;
            _lengths[step[i].Slot] += step[i].Count;
            _broken[step[i].Slot] = false;
        }

        step.Status = Step.Phase.Completed;
    }

    /// <summary>Gives a begun step up, after something failed between its layers: it cannot be completed any more.</summary>
    /// <remarks>
    /// Where no layer has attended yet, the slots are as they were before. Else those that were moving are half-written: they say so (<see cref="IsBroken"/>),
    /// and only <see cref="Reset"/> and <see cref="Restore"/> accept them; verified slots are as they were. Touches no device memory, so it works on a faulted backend too.
    /// A step that has failed already, in a kernel or by an earlier call, is left alone.
    /// </remarks>
    /// <param name="step">A step that was begun on this state and not completed.</param>
    /// <exception cref="InvalidOperationException">The step has not begun, was begun on another state, or is complete.</exception>
    public void Abandon(Step step)
    {
        ArgumentNullException.ThrowIfNull(step);
        if (step.Status == Step.Phase.Failed && ReferenceEquals(step.State, this)) return;
        RequireStep(step, Step.Phase.Begun);
        if (step.LayersDone > 0) Fail(step);
        else step.Status = Step.Phase.Failed;
    }

    /// <summary>Makes one slot's state another's, as it is now; pages are shared and copied when written.</summary>
    /// <param name="from">The slot to copy.</param>
    /// <param name="to">The slot that becomes its copy; what it held is gone.</param>
    /// <exception cref="ArgumentException">A slot does not exist.</exception>
    /// <exception cref="BrokenSlotException"><paramref name="from"/> was left half-written by a failed step.</exception>
    public void Fork(int from, int to)
    {
        using KernelBackend.Call call = Enter(nameof(Fork));
        RequireWhole(CheckedSlot(from));
        CheckedSlot(to);
        Settle();
        if (from == to) return;
        Touch(to);
        _broken[to] = true;
        ForkCore(from, to);
        _lengths[to] = _lengths[from];
        _broken[to] = false;
    }

    /// <summary>Empties a slot; a broken one is whole again.</summary>
    /// <param name="slot">The slot.</param>
    /// <exception cref="ArgumentException">The slot does not exist.</exception>
    public void Reset(int slot)
    {
        using KernelBackend.Call call = Enter(nameof(Reset));
        CheckedSlot(slot);
        Settle();
        Touch(slot);
        ResetCore(slot);
        _lengths[slot] = 0;
        _broken[slot] = false;
    }

    /// <summary>Drops a slot's last tokens, back to the last block boundary at most (fork first where more may be needed).</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="tokens">How many are dropped.</param>
    /// <exception cref="ArgumentException">The slot does not exist, the count is negative, or a block boundary lies between; nothing has changed.</exception>
    /// <exception cref="BrokenSlotException">The slot was left half-written by a failed step.</exception>
    public void Rewind(int slot, int tokens)
    {
        using KernelBackend.Call call = Enter(nameof(Rewind));
        RequireWhole(CheckedSlot(slot));
        Settle();
        int most = _lengths[slot];
        for (int layer = 0; layer < Layers; layer++)
            if (Fields[layer].Any(field => field.Rows != FieldRows.Past)) most = Math.Min(most, _lengths[slot] % Specs[layer].BlockLength);
        if (tokens < 0 || tokens > most)
            throw new ArgumentException($"tokens: slot {slot} can go back 0 to {most} tokens (length {_lengths[slot]}, to its last block boundary at most), got {tokens}", nameof(tokens));
        if (tokens == 0) return;
        Touch(slot);
        RewindCore(slot, _lengths[slot] - tokens);
        _lengths[slot] -= tokens;
    }

    /// <summary>Writes a slot's state: versioned, checksummed, readable by every backend (docs/snapshot-format.md).</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="to">Receives the bytes.</param>
    /// <exception cref="ArgumentException">The slot does not exist.</exception>
    /// <exception cref="BrokenSlotException">The slot was left half-written by a failed step.</exception>
    public void Snapshot(int slot, Stream to)
    {
        ArgumentNullException.ThrowIfNull(to);
        using KernelBackend.Call call = Enter(nameof(Snapshot));
        RequireWhole(CheckedSlot(slot));
        Settle();
        StateSnapshot.Write(this, slot, _lengths[slot], to);
    }

    /// <summary>Makes a slot what a snapshot says, from this backend or another; a broken slot is whole again.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="from">A snapshot's bytes; read completely and checked before the slot is touched.</param>
    /// <exception cref="ArgumentException">The slot does not exist.</exception>
    /// <exception cref="SnapshotException">The bytes are damaged, of an unknown version, or of other specs.</exception>
    /// <exception cref="OutOfCapacityException">The snapshot is longer than <see cref="Capacity"/>.</exception>
    public void Restore(int slot, Stream from)
    {
        ArgumentNullException.ThrowIfNull(from);
        using KernelBackend.Call call = Enter(nameof(Restore));
        CheckedSlot(slot);
        Settle();
        StateSnapshot.Content content = StateSnapshot.Read(this, from);
        if (Grows && content.Length > Capacity)
            throw new OutOfCapacityException($"slot {slot} holds at most {Capacity} positions, the snapshot has {content.Length}");
        Touch(slot);
        _broken[slot] = true;
        ResetCore(slot);
        RestoreCore(slot, content.Length);
        foreach ((int layer, StateField field, byte[] data) in content.Fields) WriteFieldCore(layer, slot, field, content.Length, data);
        _lengths[slot] = content.Length;
        _broken[slot] = false;
    }

    /// <summary>Gives the memory back, after a call that another thread has under way; harmless when repeated.</summary>
    public void Dispose()
    {
        using KernelBackend.Call call = Backend.WaitForTurn();
        if (!IsDisposed)
        {
            IsDisposed = true;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Reserves what the step may write: pages, pending rows, scratch. Throws before anything has moved.</summary>
    /// <param name="step">A checked step; its positions are known.</param>
    protected abstract void BeginCore(Step step);

    /// <summary>Copies one slot's value over another's.</summary>
    /// <param name="from">The slot to copy.</param>
    /// <param name="to">The slot that becomes its copy.</param>
    protected abstract void ForkCore(int from, int to);

    /// <summary>Makes a slot's value that of length 0.</summary>
    /// <param name="slot">The slot.</param>
    protected abstract void ResetCore(int slot);

    /// <summary>Drops the rows past a length; no block boundary lies between.</summary>
    /// <param name="slot">The slot; <see cref="Length"/> is still the old one.</param>
    /// <param name="length">The length to return to.</param>
    protected virtual void RewindCore(int slot, int length) { }

    /// <summary>Makes room for a state of some length in an empty slot, before its fields are written.</summary>
    /// <param name="slot">The slot, just reset.</param>
    /// <param name="length">The length to come.</param>
    protected virtual void RestoreCore(int slot, int length) { }

    /// <summary>Reads a field in its logical shape, <see cref="StateField.ShapeAt"/>, as <see cref="StateType"/>.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="slot">The slot.</param>
    /// <param name="field">The field.</param>
    /// <param name="to">Receives the numbers.</param>
    protected internal abstract void ReadFieldCore(int layer, int slot, StateField field, Span<byte> to);

    /// <summary>Writes a field given in its logical shape at a length, as <see cref="StateType"/>.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="slot">The slot.</param>
    /// <param name="field">The field.</param>
    /// <param name="length">The length that the slot will have.</param>
    /// <param name="from">The numbers.</param>
    protected abstract void WriteFieldCore(int layer, int slot, StateField field, int length, ReadOnlySpan<byte> from);

    /// <summary>Gives the memory back.</summary>
    /// <param name="disposing">Always true; there are no finalizers here.</param>
    protected abstract void Dispose(bool disposing);

    internal void BeginChecked(Step step)
    {
        if (step.Status != Step.Phase.Open) throw new InvalidOperationException("step: has begun already; Clear it and Add its entries anew");
        Settle();
        for (int i = 0; i < step.Entries; i++)
        {
            StepEntry entry = step[i];
            RequireWhole(CheckedSlot(entry.Slot));
            long reach = (long)_lengths[entry.Slot] + entry.Tree.Levels;
            if (Grows && reach > Capacity)
                throw new OutOfCapacityException($"slot {entry.Slot} holds at most {Capacity} positions; it has {_lengths[entry.Slot]} and the step reaches {reach}");
            if (reach > int.MaxValue) throw new OutOfCapacityException($"slot {entry.Slot}: positions end at {int.MaxValue}, the step reaches {reach}");
        }

        // Trees that wait for their commit are dropped from here on, also where the reservation fails half-way.
        for (int i = 0; i < step.Entries; i++) Touch(step[i].Slot);
        step.Begin(this, ++_stamp, _lengths);
        try
        {
            BeginCore(step);
        }
        catch
        {
            step.Reopen();
            throw;
        }

        for (int i = 0; i < step.Entries; i++) _stamps[step[i].Slot] = step.Stamp;
    }

    internal void RequireStep(Step step, Step.Phase phase)
    {
        if (step.Status == Step.Phase.Failed) throw new InvalidOperationException("step: has failed; Clear it and begin anew");
        if (!ReferenceEquals(step.State, this)) throw new InvalidOperationException(step.State is null ? "step: has not begun" : "step: was begun on another state");
        if (step.Status != phase) throw new InvalidOperationException($"step: expected {phase}, is {step.Status}");
        for (int i = 0; i < step.Entries; i++)
            if (_stamps[step[i].Slot] != step.Stamp) throw new InvalidOperationException($"step: slot {step[i].Slot} has moved or begun another step since this one began");
    }

    /// <summary>A layer is about to write: until the step is complete the slots that it moves are half-written, also where nobody says that it failed.</summary>
    internal void MarkWriting(Step step)
    {
        for (int i = 0; i < step.Entries; i++)
            if (step[i].Moves && step[i].Count > 0) _broken[step[i].Slot] = true;
    }

    /// <summary>Nothing goes on with a step that failed while a layer was writing.</summary>
    internal void Fail(Step step)
    {
        step.Status = Step.Phase.Failed;
        MarkWriting(step);
        for (int i = 0; i < step.Entries; i++) Touch(step[i].Slot);
    }

    private KernelBackend.Call Enter(string op)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        return Backend.Enter(op);
    }

    /// <summary>No step that began before may go on with the slot.</summary>
    private void Touch(int slot) => _stamps[slot] = 0;

    private int CheckedSlot(int slot) => (uint)slot < (uint)Slots ? slot
        : throw new ArgumentOutOfRangeException(nameof(slot), slot, $"expected 0 to {Slots - 1}");

    private void RequireWhole(int slot)
    {
        if (_broken[slot]) throw new BrokenSlotException($"slot {slot} was left half-written by a step that was not completed; Reset or Restore it");
    }
}
