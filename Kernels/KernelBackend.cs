using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using static Treeline.Kernels.TensorChecks;

namespace Treeline.Kernels;

/// <summary>A device's memory and kernels: the one contract that every backend fulfils.</summary>
/// <remarks>
/// Each op's part of this class lies in the op's own file: a public method that checks, a protected <c>…Core</c> that computes.
/// Calls on one backend must not overlap (detected); the calling thread may change. Several backends live side by side.
/// </remarks>
public abstract partial class KernelBackend : IDisposable
{
    private int _busy;                                      // the thread whose call is under way, 0 for none
    private bool _disposed;
    private string _call = "";                              // the call under way, or the last one
    private BackendFaultedException? _fault;

    // What the call under way works on: kernels walk raw memory, and the caller's last reference to it may be gone before they end.
    private readonly List<DeviceBuffer> _inUse = [];

    /// <summary>The name it was opened by, such as <c>cpu</c>.</summary>
    public abstract string Name { get; }

    /// <summary>One line about the device: SIMD width, threads, memory.</summary>
    public abstract string Description { get; }

    /// <summary>True where a token's bits depend on its path alone, for every op of this backend.</summary>
    public virtual bool IsLosslessToTheBit => false;

    /// <summary>What float inputs of ops may be stored as.</summary>
    internal virtual Types FloatInputs => Floats;

    /// <summary>What float outputs of ops may be stored as.</summary>
    internal virtual Types FloatOutputs => Types.Float32;

    /// <summary>Allocates a zeroed tensor.</summary>
    /// <param name="type">Element type.</param>
    /// <param name="shape">Sizes of the dimensions, 0 or more each.</param>
    /// <exception cref="ArgumentException">A size is negative, or the elements, or those of one row, are too many to be counted.</exception>
    /// <exception cref="OutOfDeviceMemoryException">There is not enough memory; the backend stays usable.</exception>
    public DeviceTensor Allocate(ElementType type, params ReadOnlySpan<int> shape)
    {
        using Call call = Enter(nameof(Allocate));
        return new DeviceTensor(AllocateCore(DeviceTensor.CountOf(shape) * type.Size()), type, shape, DeviceTensor.DenseStrides(shape), 0, owner: true);
    }

    /// <summary>Makes memory that somebody else owns usable without a copy; it must outlive the tensor and every call that uses it.</summary>
    /// <param name="pointer">Address of the first element, in this backend's kind of memory.</param>
    /// <param name="type">Element type.</param>
    /// <param name="shape">Sizes of the dimensions.</param>
    /// <param name="strides">Distances in elements; empty: without gaps.</param>
    /// <exception cref="ArgumentException">The pointer is null or not aligned to the type, a size or stride is negative, or the strides do not match the shape.</exception>
    public DeviceTensor Wrap(nint pointer, ElementType type, ReadOnlySpan<int> shape, ReadOnlySpan<long> strides = default)
    {
        using Call call = Enter(nameof(Wrap));
        if (pointer == 0) throw new ArgumentException("pointer: expected an address, got null", nameof(pointer));
        if (pointer % type.Size() != 0) throw new ArgumentException($"pointer: expected an address aligned to {type.Size()} bytes, got 0x{pointer:x}", nameof(pointer));
        _ = DeviceTensor.CountOf(shape);                    // refuses shapes that cannot be
        if (strides.Length != 0 && strides.Length != shape.Length)
            throw new ArgumentException($"strides: expected {shape.Length} like the shape, got {strides.Length}", nameof(strides));
        if (strides.IsEmpty) strides = DeviceTensor.DenseStrides(shape);
        Int128 last = 0;
        for (int i = 0; i < shape.Length; i++)
        {
            if (strides[i] < 0) throw new ArgumentException($"strides: expected 0 or more, got [{string.Join(", ", strides.ToArray())}]", nameof(strides));
            last += (Int128)Math.Max(0, shape[i] - 1) * strides[i];
        }

        if (last >= long.MaxValue / sizeof(double)) throw new ArgumentException($"strides: [{string.Join(", ", strides.ToArray())}] reach further than can be addressed", nameof(strides));
        return new DeviceTensor(WrapCore(pointer, (long)(last + 1) * type.Size()), type, shape, strides, 0, owner: true);
    }

    /// <summary>Copies host numbers into a tensor; the span may be reused when this returns.</summary>
    /// <typeparam name="T">The element type's .NET type.</typeparam>
    /// <param name="to">A tensor with contiguous rows.</param>
    /// <param name="from">As many numbers as it has elements.</param>
    /// <exception cref="ArgumentException">Type or count differ.</exception>
    public void Write<T>(DeviceTensor to, ReadOnlySpan<T> from) where T : unmanaged
    {
        using Call call = Enter(nameof(Write));
        RequireHost<T>(to, from.Length);
        WriteCore(to, MemoryMarshal.AsBytes(from));
    }

    /// <summary>Copies a tensor to the host; waits for the work that writes it.</summary>
    /// <typeparam name="T">The element type's .NET type.</typeparam>
    /// <param name="from">A tensor with contiguous rows.</param>
    /// <param name="to">As many numbers as it has elements.</param>
    /// <exception cref="ArgumentException">Type or count differ.</exception>
    public void Read<T>(DeviceTensor from, Span<T> to) where T : unmanaged
    {
        using Call call = Enter(nameof(Read));
        RequireHost<T>(from, to.Length);
        ReadCore(from, MemoryMarshal.AsBytes(to));
    }

    /// <summary>Allocates a tensor and fills it with host numbers.</summary>
    /// <typeparam name="T">The element type's .NET type.</typeparam>
    /// <param name="from">The numbers, row-major.</param>
    /// <param name="shape">Sizes of the dimensions.</param>
    /// <exception cref="ArgumentException">The count is not the shape's.</exception>
    public DeviceTensor Upload<T>(ReadOnlySpan<T> from, params ReadOnlySpan<int> shape) where T : unmanaged
    {
        if (from.Length != DeviceTensor.CountOf(shape))
            throw new ArgumentException($"from: expected {DeviceTensor.CountOf(shape)} numbers for {DeviceTensor.DescribeShape(shape)}, got {from.Length}", nameof(from));
        DeviceTensor tensor = Allocate(ElementTypes.Of<T>(), shape);
        try
        {
            Write(tensor, from);
            return tensor;
        }
        catch
        {
            tensor.Dispose();
            throw;
        }
    }

    /// <summary>Allocates a tensor of the same shape as a host tensor and fills it.</summary>
    /// <typeparam name="T">The element type's .NET type.</typeparam>
    /// <param name="from">The numbers; gaps in it are left out.</param>
    public DeviceTensor Upload<T>(in ReadOnlyTensorSpan<T> from) where T : unmanaged
    {
        Span<int> shape = stackalloc int[from.Rank];
        for (int i = 0; i < shape.Length; i++) shape[i] = checked((int)from.Lengths[i]);
        var dense = new T[from.FlattenedLength];
        from.FlattenTo(dense);
        return Upload<T>(dense, shape);
    }

    /// <summary>Reads a whole tensor into a new array, row-major.</summary>
    /// <typeparam name="T">The element type's .NET type.</typeparam>
    /// <param name="from">A tensor with contiguous rows.</param>
    public T[] Download<T>(DeviceTensor from) where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(from);
        RequireCrossable(from);
        var to = new T[from.Count];
        Read(from, to.AsSpan());
        return to;
    }

    /// <summary>Waits until all work given so far has been done.</summary>
    public void Synchronize()
    {
        using Call call = Enter(nameof(Synchronize));
        SynchronizeCore();
    }

    /// <summary>True where this backend computes a spec; else says why not. It never computes something near it.</summary>
    /// <param name="spec">The spec.</param>
    /// <param name="why">Why not, empty where it does.</param>
    public bool Supports(AttentionSpec spec, out string why)
    {
        ArgumentNullException.ThrowIfNull(spec);
        Attention? attention = Attentions.Find(spec.Attention);
        if (attention is null)
        {
            why = $"Attention: \"{spec.Attention}\" is none of {string.Join(", ", Attentions.All.Select(known => known.Name))}";
            return false;
        }

        return attention.IsValid(spec, out why) && SupportsCore(spec, out why);
    }

    /// <summary>Binds one layer's tensors to its spec.</summary>
    /// <param name="spec">What is computed.</param>
    /// <param name="weights">The tensors by name: <c>alpha</c>, <c>taps</c>, … as <see cref="Attention.Weights"/> lists them; they must outlive the layer.</param>
    /// <exception cref="NotSupportedException">The backend does not support the spec; the message says why.</exception>
    /// <exception cref="ArgumentException">A tensor is missing, unknown to the spec, or of another shape.</exception>
    public AttentionLayer Bind(AttentionSpec spec, IReadOnlyDictionary<string, DeviceTensor>? weights = null)
    {
        RequireSupported(spec);
        using Call call = Enter(nameof(Bind));
        weights ??= new Dictionary<string, DeviceTensor>();
        Attention attention = Attentions.Find(spec.Attention)!;
        IReadOnlyList<LayerWeight> wanted = attention.Weights(spec);
        foreach (LayerWeight weight in wanted)
        {
            if (!weights.TryGetValue(weight.Name, out DeviceTensor? tensor)) throw new ArgumentException($"weights: {weight.Name} is missing for this spec", nameof(weights));
            tensor.Require(this, FloatInputs, weight.Shape.ToArray(), weight.Name);
        }

        foreach (string name in weights.Keys)
            if (!wanted.Any(weight => weight.Name == name)) throw new ArgumentException($"weights: {name} is not a tensor of this spec", nameof(weights));
        var layer = new AttentionLayer(this, spec, attention, new Dictionary<string, DeviceTensor>(weights));
        layer.Prepared = PrepareCore(layer);
        return layer;
    }

    /// <summary>Creates the state of a model: all its layers, several sequences.</summary>
    /// <param name="specs">One spec a layer.</param>
    /// <param name="slots">Number of sequences.</param>
    /// <param name="capacity">Most positions of a slot where a layer's state grows (softmax); of no effect elsewhere.</param>
    /// <exception cref="NotSupportedException">The backend does not support a spec, or not so many slots of it in one state.</exception>
    /// <exception cref="OutOfDeviceMemoryException">There is not enough memory; the backend stays usable.</exception>
    public AttentionState CreateState(IReadOnlyList<AttentionSpec> specs, int slots, int capacity)
    {
        ArgumentNullException.ThrowIfNull(specs);
        ArgumentOutOfRangeException.ThrowIfLessThan(slots, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        if (specs.Count == 0) throw new ArgumentException("specs: expected one a layer, got none", nameof(specs));
        foreach (AttentionSpec spec in specs) RequireSupported(spec);
        using Call call = Enter(nameof(CreateState));
        return CreateStateCore(specs, slots, capacity);
    }

    /// <summary>One layer's attention for every entry of a step: those that move advance the layer's state, the others only read it and leave pending rows.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="state">The layer's state, <c>state[i]</c>.</param>
    /// <param name="step">The step; begun here where it has not been.</param>
    /// <param name="inputs">The new tokens' query, key, value.</param>
    /// <param name="output">Receives <c>[tokens, queryHeads, valueDim]</c>; shares no memory with the inputs.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    /// <exception cref="InvalidOperationException">The step is not this state's, has failed, or the layer has attended already.</exception>
    /// <exception cref="OutOfDeviceMemoryException">There is not enough memory. A step's first layer finds out, before it writes: the slots are as they were.</exception>
    public void Attend(AttentionLayer layer, LayerState state, Step step, AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(step);
        using Call call = Enter(nameof(Attend));
        AttentionSpec spec = layer.Spec;
        AttentionState owner = state.Owner;
        layer.RequireWhole();
        ObjectDisposedException.ThrowIf(owner.IsDisposed, owner);
        if (!ReferenceEquals(layer.Backend, this)) throw new ArgumentException($"layer: bound to {layer.Backend.Name}, not to this {Name}", nameof(layer));
        if (!ReferenceEquals(owner.Backend, this)) throw new ArgumentException($"state: belongs to {owner.Backend.Name}, not to this {Name}", nameof(state));
        if (spec != state.Spec) throw new ArgumentException($"state: layer {state.Index} is of another spec: expected {spec}, got {state.Spec}", nameof(state));
        inputs.Query.Require(this, FloatInputs, [step.Tokens, spec.QueryHeads, spec.HeadDim], "query");
        inputs.Key.Require(this, FloatInputs, [step.Tokens, spec.KeyValueHeads, spec.HeadDim], "key");
        inputs.Value.Require(this, FloatInputs, [step.Tokens, spec.KeyValueHeads, spec.ValueDim], "value");
        output.Require(this, FloatOutputs, [step.Tokens, spec.QueryHeads, spec.ValueDim]);
        output.RequireApart(inputs.Query, other: "query");
        output.RequireApart(inputs.Key, other: "key");
        output.RequireApart(inputs.Value, other: "value");
        if (step.Status == Step.Phase.Open) owner.BeginChecked(step);
        owner.RequireStep(step, Step.Phase.Begun);
        if (step.LayerDone[state.Index]) throw new InvalidOperationException($"step: layer {state.Index} has attended already");

        ReserveCore(owner, step, inputs);
        owner.MarkWriting(step);
        try
        {
            layer.Attention.Attend(this, layer, state, step, inputs, output);
        }
        catch
        {
            owner.Fail(step);
            throw;
        }

        GC.KeepAlive(layer);                                // and what it binds
        step.LayerDone[state.Index] = true;
        step.LayersDone++;
    }

    /// <summary>Moves verified entries past their accepted paths, all layers, from the rows that the verification saw.</summary>
    /// <param name="state">The state.</param>
    /// <param name="step">A completed step; it is committed at most once.</param>
    /// <param name="accepted">For each entry the nodes from a root down, -1 padded, <c>[entries, step.MaxDepth]</c>; empty paths are legal, rows of entries that move are -1.</param>
    /// <exception cref="ArgumentException">A row is no path of its tree; nothing has moved.</exception>
    /// <exception cref="InvalidOperationException">The step was not completed on this state, is committed already, or a slot has moved since.</exception>
    public void Commit(AttentionState state, Step step, ReadOnlySpan<int> accepted)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(step);
        using Call call = Enter(nameof(Commit));
        ObjectDisposedException.ThrowIf(state.IsDisposed, state);
        if (!ReferenceEquals(state.Backend, this)) throw new ArgumentException($"state: belongs to {state.Backend.Name}, not to this {Name}", nameof(state));
        state.CommitChecked(step, accepted);
    }

    /// <summary>As the other overload, with the accepted paths on the device, where they are checked: a device's backend does not wait for it.</summary>
    /// <remarks>
    /// On a device, a row that is no path of its tree leaves its slot where it is while the others move; the next call that reads the state
    /// (<see cref="AttentionState.Length"/>, a step's begin, another commit, <c>Fork</c>, <c>Snapshot</c>, …) throws the exception, once, and has done nothing else. The step is committed for all that.
    /// </remarks>
    /// <param name="state">The state.</param>
    /// <param name="step">A completed step; it is committed at most once.</param>
    /// <param name="accepted">int32 <c>[entries, step.MaxDepth]</c>, as in the other overload; on a device it may be written again by what is queued later.</param>
    /// <exception cref="ArgumentException">The shape does not fit; or, where the host sees them, a row is no path of its tree: nothing has moved.</exception>
    /// <exception cref="InvalidOperationException">The step was not completed on this state, is committed already, or a slot has moved since.</exception>
    public void Commit(AttentionState state, Step step, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(step);
        using Call call = Enter(nameof(Commit));
        ObjectDisposedException.ThrowIf(state.IsDisposed, state);
        if (!ReferenceEquals(state.Backend, this)) throw new ArgumentException($"state: belongs to {state.Backend.Name}, not to this {Name}", nameof(state));
        accepted.Require(this, Types.Int32, [step.Entries, step.MaxDepth]);
        CommitCore(state, step, accepted);
    }

    /// <summary>Says which kernel would run an attention, and whether it is lossless to the bit.</summary>
    /// <param name="spec">The spec.</param>
    public string Describe(AttentionSpec spec) =>
        Supports(spec, out string why) ? DescribeCore(spec) : $"{Name}: not supported: {why}";

    /// <summary>Says which product <see cref="Linear"/> runs with weights of a form, and whether it is lossless to the bit.</summary>
    /// <param name="form">The form.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such form.</exception>
    public string Describe(WeightForm form) =>
        Enum.IsDefined(form) ? DescribeCore(form) : throw new ArgumentOutOfRangeException(nameof(form), form, "unknown form");

    /// <summary>Ends the backend after the work given so far; harmless when repeated. Its tensors, states and layers are unusable from then on.</summary>
    public void Dispose()
    {
        using Call call = WaitForTurn();
        if (!_disposed)
        {
            _disposed = true;
            Dispose(true);
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Allocates zeroed memory.</summary>
    /// <param name="bytes">Its size.</param>
    protected abstract DeviceBuffer AllocateCore(long bytes);

    /// <summary>Makes a buffer of foreign memory, or refuses memory of another context by name.</summary>
    /// <param name="pointer">Its address.</param>
    /// <param name="bytes">Its size.</param>
    protected abstract DeviceBuffer WrapCore(nint pointer, long bytes);

    /// <summary>Copies host bytes, row-major without gaps, into a tensor whose rows are contiguous.</summary>
    /// <param name="to">The tensor.</param>
    /// <param name="from">The bytes.</param>
    protected abstract void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from);

    /// <summary>Copies a tensor whose rows are contiguous to host bytes, row-major without gaps.</summary>
    /// <param name="from">The tensor.</param>
    /// <param name="to">The bytes.</param>
    protected abstract void ReadCore(DeviceTensor from, Span<byte> to);

    /// <summary>Waits for the device.</summary>
    protected virtual void SynchronizeCore() { }

    /// <summary>What this backend asks of a valid spec.</summary>
    /// <param name="spec">A spec that means something.</param>
    /// <param name="why">Why not, empty where it is supported.</param>
    protected abstract bool SupportsCore(AttentionSpec spec, out string why);

    /// <summary>Derives what the kernels want from a layer's weights, null where nothing; disposed with the layer where it is disposable.</summary>
    /// <param name="layer">The layer.</param>
    protected virtual object? PrepareCore(AttentionLayer layer) => null;

    /// <summary>Creates the state; the specs are supported.</summary>
    /// <param name="specs">One spec a layer.</param>
    /// <param name="slots">Number of sequences.</param>
    /// <param name="capacity">Most positions of a growing slot.</param>
    protected abstract AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity);

    /// <summary>Takes the memory that a step's attention needs for inputs like these, all layers; what does not fit throws here, before anything is written.</summary>
    /// <param name="state">The state that the step has begun on.</param>
    /// <param name="step">The step.</param>
    /// <param name="inputs">One layer's inputs.</param>
    protected virtual void ReserveCore(AttentionState state, Step step, in AttentionInputs inputs) { }

    /// <summary>Commits paths that lie on the device; backends whose memory is the host's read them.</summary>
    /// <param name="state">The state.</param>
    /// <param name="step">The completed step.</param>
    /// <param name="accepted">int32 <c>[entries, maxDepth]</c>.</param>
    protected virtual void CommitCore(AttentionState state, Step step, DeviceTensor accepted)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(accepted);
        var host = new int[accepted.Count];
        ReadCore(accepted, MemoryMarshal.AsBytes(host.AsSpan()));
        state.CommitChecked(step, host);
    }

    /// <summary>Which kernel runs a supported spec.</summary>
    /// <param name="spec">The spec.</param>
    protected virtual string DescribeCore(AttentionSpec spec)
    {
        ArgumentNullException.ThrowIfNull(spec);
        return $"{Name}: {spec.Attention}{(IsLosslessToTheBit ? ", lossless to the bit" : "")}";
    }

    /// <summary>Which product runs with weights of a form, without the backend's name.</summary>
    /// <param name="form">A form that there is.</param>
    protected virtual string DescribeCore(WeightForm form) => $"own product{(IsLosslessToTheBit ? ", lossless to the bit" : "")}";

    /// <summary>Gives the device back.</summary>
    /// <param name="disposing">Always true; there are no finalizers here.</param>
    protected abstract void Dispose(bool disposing);

    /// <summary>The exception of an op that a backend does not have.</summary>
    /// <param name="op">The op's name.</param>
    protected NotSupportedException Unsupported(string op) => new($"{Name}: no kernel for {op}");

    /// <summary>True once <see cref="Fault"/> was called: nothing more can be given to the device.</summary>
    protected bool IsFaulted => _fault is not null;

    /// <summary>Marks the backend as unusable: every later call throws at once, only <see cref="Dispose()"/> is allowed.</summary>
    /// <param name="cause">What the device said.</param>
    /// <returns>The exception to throw, which names the call under way.</returns>
    protected BackendFaultedException Fault(Exception cause)
    {
        ArgumentNullException.ThrowIfNull(cause);
        return _fault ??= new BackendFaultedException($"{Name}: {_call} failed on the device: {cause.Message}", cause);
    }

    internal Call Enter(string op)
    {
        if (Interlocked.CompareExchange(ref _busy, Environment.CurrentManagedThreadId, 0) != 0)
            throw new InvalidOperationException($"{Name}: {op} overlaps another call; calls on one backend must follow each other");
        if (_disposed)
        {
            Volatile.Write(ref _busy, 0);
            throw new ObjectDisposedException(Name, $"{Name}: {op} on a backend that was disposed");
        }

        if (_fault is { } fault)
        {
            Volatile.Write(ref _busy, 0);
            throw new BackendFaultedException($"{Name}: {op} refused, the backend is unusable since an earlier failure: {fault.Message}", fault);
        }

        _call = op;

        return new Call(this);
    }

    /// <summary>Keeps memory from the garbage collector until the call under way ends.</summary>
    internal void KeepUntilEnd(DeviceBuffer buffer) => _inUse.Add(buffer);

    /// <summary>As <see cref="Enter"/>, for what gives memory back: waits for another thread's call instead of refusing, and is allowed inside a call of this thread.</summary>
    internal Call WaitForTurn()
    {
        int me = Environment.CurrentManagedThreadId;
        var wait = new SpinWait();
        while (true)
        {
            int other = Interlocked.CompareExchange(ref _busy, me, 0);
            if (other == 0) return new Call(this);
            if (other == me) return default;
            wait.SpinOnce();
        }
    }

    private void RequireSupported(AttentionSpec spec)
    {
        if (!Supports(spec, out string why)) throw new NotSupportedException($"{Name}: {why}");
    }

    private static void RequireCrossable(DeviceTensor tensor)
    {
        if (tensor.Count > int.MaxValue / tensor.Type.Size())
            throw new ArgumentException($"tensor: expected at most {int.MaxValue} bytes at once, got {tensor.Describe()}; copy it in slices of rows", nameof(tensor));
    }

    private void RequireHost<T>(DeviceTensor tensor, int count) where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (tensor.Buffer.IsDisposed) throw new ObjectDisposedException(nameof(tensor), "the tensor's memory was given back");
        if (!ReferenceEquals(tensor.Backend, this)) throw new ArgumentException($"tensor: expected memory of this {Name}, got memory of {tensor.Backend.Name}", nameof(tensor));
        if (tensor.Type != ElementTypes.Of<T>() || tensor.Count != count || !tensor.HasContiguousRows)
            throw new ArgumentException($"tensor: expected {count} contiguous {ElementTypes.Of<T>()}, got {tensor.Describe()}", nameof(tensor));
        RequireCrossable(tensor);
        KeepUntilEnd(tensor.Buffer);
    }

    /// <summary>One call in progress; overlapping ones are refused.</summary>
    internal readonly ref struct Call(KernelBackend? backend)
    {
        public void Dispose()
        {
            if (backend is null) return;
            backend._inUse.Clear();
            Volatile.Write(ref backend._busy, 0);
        }
    }
}
