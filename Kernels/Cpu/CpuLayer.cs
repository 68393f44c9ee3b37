namespace Treeline.Kernels;

/// <summary>One layer's part of a <see cref="CpuState"/>; each attention lays it out as its kernels want it.</summary>
internal abstract unsafe class CpuLayer : LayerState, IDisposable
{
    protected CpuLayer(CpuBackend backend, AttentionState owner, int index) : base(owner, index) => Backend = backend;

    protected CpuBackend Backend { get; }

    /// <summary>Bytes of a slot's value at a length.</summary>
    public abstract long Bytes(int length);

    /// <summary>Makes room for what an entry of a step may write, and for its pending rows; throws before anything has changed.</summary>
    public abstract void Reserve(in StepEntry entry, int length);

    /// <summary>Makes a slot a copy of another.</summary>
    public abstract void Fork(int from, int to, int length);

    /// <summary>Empties a slot.</summary>
    public abstract void Reset(int slot);

    /// <summary>Drops the rows past a length; no block boundary lies between.</summary>
    public virtual void Rewind(int slot, int length) { }

    /// <summary>Makes room for a length in an empty slot, before its fields are written.</summary>
    public virtual void Restore(int slot, int length) { }

    /// <summary>Appends the pending rows of an accepted path, with the bits that an advance over the same tokens leaves.</summary>
    public abstract void Append(int slot, int length, int* path, int count);

    /// <summary>Copies a field out, in its logical shape.</summary>
    public abstract void Read(int slot, StateField field, int length, float* to);

    /// <summary>Copies a field in, given in its logical shape at a length; the slot has just been emptied.</summary>
    public abstract void Write(int slot, StateField field, int length, float* from);

    public abstract void Dispose();

    /// <summary>The next multiple of 16 numbers: one cache line, one widest vector.</summary>
    public static int Padded(int n) => (n + 15) & ~15;

    /// <summary>Distance of the rows of a transposed matrix of n columns: never a multiple of 1 KB, whose rows would share one set of a cache.</summary>
    public static int TransposedStride(int n) => Padded(n) % 256 == 0 ? Padded(n) + 16 : Padded(n);
}
