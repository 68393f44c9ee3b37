using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>One layer of grouped attention: for each slot and key/value head S, the current group's rows, and the values before it.</summary>
/// <remarks>
/// A head's memory: <c>S [headDim, valueStride]</c>, k̂ transposed <c>[headDim, keyStride]</c> (lanes run over keys),
/// values <c>[convTaps - 1 + groupSize, valueStride]</c>: the window and the group in one piece, so that the convolution walks back through both.
/// Value rows are padded with zeros.
/// </remarks>
internal sealed unsafe class FlashLayer : CpuLayer
{
    private readonly HostBuffer _memory;
    private readonly int _heads;
    private readonly int _window;
    private readonly nint _stateFloats;
    private readonly nint _keyFloats;
    private readonly nint _headFloats;

    public FlashLayer(CpuBackend backend, AttentionState owner, int index) : base(backend, owner, index)
    {
        _heads = Spec.KeyValueHeads;
        _window = Math.Max(0, Spec.ConvTaps - 1);
        ValueStride = Padded(Spec.ValueDim);
        KeyStride = TransposedStride(Spec.GroupSize);
        _stateFloats = Spec.Global ? (nint)Spec.HeadDim * ValueStride : 0;
        _keyFloats = HasKeys ? (nint)Spec.HeadDim * KeyStride : 0;
        _headFloats = _stateFloats + _keyFloats + (nint)(_window + Spec.GroupSize) * ValueStride;
        Pending = new PendingRows(backend, owner.Slots, _heads, HasKeys ? Spec.HeadDim : 0, ValueStride);
        _memory = new HostBuffer(backend, checked((long)owner.Slots * _heads * _headFloats * sizeof(float)));
    }

    public CpuKernels Kernels => Backend.Kernels;

    /// <summary>True where scores or S need the keys: without either, only the convolution is left.</summary>
    public bool HasKeys => Spec.Global || Spec.Local != LocalKind.None;

    /// <summary>Distance of the rows of S and of the values.</summary>
    public int ValueStride { get; }

    /// <summary>Distance of the rows of the transposed k̂ of the group.</summary>
    public int KeyStride { get; }

    /// <summary>S <c>[headDim, ValueStride]</c>, as of the last completed group.</summary>
    public float* State(int slot, int head) => (float*)_memory.Pointer + ((nint)slot * _heads + head) * _headFloats;

    /// <summary>k̂ of the current group, transposed <c>[headDim, KeyStride]</c>.</summary>
    public float* Keys(int slot, int head) => State(slot, head) + _stateFloats;

    /// <summary>Values of the current group <c>[groupSize, ValueStride]</c>; the window's rows lie just before them.</summary>
    public float* Values(int slot, int head) => Keys(slot, head) + _keyFloats + (nint)_window * ValueStride;

    /// <summary>k̂ and values of verified trees.</summary>
    public PendingRows Pending { get; }

    public override long Bytes(int length) => _heads * _headFloats * sizeof(float);

    public override void Reserve(in StepEntry entry, int length)
    {
        if (!entry.Moves) Pending.Reserve(entry.Slot, entry.Count);
    }

    public override void Fork(int from, int to, int length)
    {
        nint bytes = _heads * _headFloats * sizeof(float);
        Buffer.MemoryCopy(State(from, 0), State(to, 0), bytes, bytes);
    }

    public override void Reset(int slot)
    {
        NativeMemory.Clear(State(slot, 0), (nuint)Bytes(0));
    }

    public override void Append(int slot, int length, int* path, int count)
    {
        for (int head = 0; head < _heads; head++) Backend.Kernels.FlashAppend(this, slot, head, length, path, count);
    }

    public override void Read(int slot, StateField field, int length, float* to)
    {
        for (int head = 0; head < _heads; head++) Copy(slot, head, field, length, to, write: false);
    }

    public override void Write(int slot, StateField field, int length, float* from)
    {
        for (int head = 0; head < _heads; head++) Copy(slot, head, field, length, from, write: true);
    }

    public override void Dispose()
    {
        _memory.Dispose();
        Pending.Dispose();
    }

    /// <summary>Copies one head's part of a field between its place here and its logical place.</summary>
    private void Copy(int slot, int head, StateField field, int length, float* logical, bool write)
    {
        int rows = field.RowsAt(length, Spec.BlockLength), width = field.Width;
        bool headFirst = field.Rows == FieldRows.Fixed;
        for (int row = 0; row < rows; row++)
        {
            float* there = logical + (headFirst ? (nint)head * rows + row : (nint)row * _heads + head) * width;
            float* here = field.Name switch
            {
                "S" => State(slot, head) + (nint)row * ValueStride,
                "key" => Keys(slot, head) + row,
                "value" => Values(slot, head) + (nint)row * ValueStride,
                "window" => Values(slot, head) + (nint)(row - _window) * ValueStride,
                _ => throw new ArgumentOutOfRangeException(nameof(field), field.Name, "unknown field"),
            };
            nint step = field.Name == "key" ? KeyStride : 1;
            for (int i = 0; i < width; i++)
            {
                if (write) here[i * step] = there[i];
                else there[i] = here[i * step];
            }
        }
    }
}
