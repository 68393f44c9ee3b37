namespace Treeline.Kernels;

/// <summary>Which of an entry's rows a model should compute logits for.</summary>
public enum LogitRows
{
    /// <summary>The last row of a path that moves, every row of an entry that does not.</summary>
    Default,

    /// <summary>None: a chunk of a prompt that goes on.</summary>
    None,

    /// <summary>The last row.</summary>
    Last,

    /// <summary>Every row.</summary>
    All,
}

/// <summary>One sequence's share of a step.</summary>
/// <param name="Slot">The state's slot.</param>
/// <param name="Tree">The new tokens' topology.</param>
/// <param name="Moves">True: the state moves past the tokens (a path); false: it does not (verification).</param>
/// <param name="Offset">Where its tokens begin among the packed tokens of the step.</param>
/// <param name="LogitOffset">Where its rows begin among the step's logit rows.</param>
/// <param name="LogitCount">Its number of logit rows.</param>
public readonly record struct StepEntry(int Slot, TokenTree Tree, bool Moves, int Offset, int LogitOffset, int LogitCount)
{
    /// <summary>Number of tokens.</summary>
    public int Count => Tree.Count;
}

/// <summary>What one call feeds: entries of several sequences, their tokens packed one after the other.</summary>
/// <remarks>
/// Prefill of some sequences, decoding and verification of others run together. Reusable: <see cref="Clear"/> and <see cref="Add"/> allocate nothing once it has grown.
/// The order of calls: <c>Add</c>…, <see cref="AttentionState.Begin"/> (also done by the first <c>Attend</c>), <c>Attend</c> for each layer,
/// <see cref="AttentionState.Complete"/>, <see cref="KernelBackend.Commit(AttentionState, Step, ReadOnlySpan{int})"/>.
/// </remarks>
public sealed class Step
{
    private StepEntry[] _entries = new StepEntry[4];
    private int[] _offsets = new int[5];
    private int[] _positions = new int[64];
    private int[] _logitRows = new int[64];

    internal enum Phase
    {
        Open,
        Begun,
        Completed,
        Committed,
        Failed,
    }

    /// <summary>Number of entries.</summary>
    public int Entries { get; private set; }

    /// <summary>Number of tokens of all entries.</summary>
    public int Tokens { get; private set; }

    /// <summary>Number of levels of the deepest tree: the width of a table of accepted paths.</summary>
    public int MaxDepth { get; private set; }

    /// <summary>Where each entry's tokens begin, and their total: <c>[entries + 1]</c>, as in cu_seqlens.</summary>
    public ReadOnlySpan<int> Offsets => _offsets.AsSpan(0, Entries + 1);

    /// <summary>Position of each token in its sequence, <c>[tokens]</c>; known once the step has begun.</summary>
    /// <exception cref="InvalidOperationException">The step has not begun.</exception>
    public ReadOnlySpan<int> Positions => State is null
        ? throw new InvalidOperationException("positions are known once the step has begun (AttentionState.Begin)")
        : _positions.AsSpan(0, Tokens);

    /// <summary>The tokens (indices into the packed tokens, ascending) that want logits.</summary>
    public ReadOnlySpan<int> LogitRows => _logitRows.AsSpan(0, LogitCount);

    /// <summary>Number of tokens that want logits.</summary>
    public int LogitCount { get; private set; }

    internal AttentionState? State { get; private set; }

    internal Phase Status { get; set; }

    internal long Stamp { get; private set; }

    internal int LayersDone { get; set; }

    internal bool[] LayerDone { get; private set; } = [];

    /// <summary>One entry.</summary>
    /// <param name="entry">Its index.</param>
    public StepEntry this[int entry] => (uint)entry < (uint)Entries ? _entries[entry]
        : throw new ArgumentOutOfRangeException(nameof(entry), entry, $"expected 0 to {Entries - 1}");

    /// <summary>Empties the step for reuse; a verified tree that was not committed is dropped.</summary>
    public void Clear()
    {
        Entries = Tokens = LogitCount = MaxDepth = LayersDone = 0;
        State = null;
        Status = Phase.Open;
    }

    /// <summary>Adds the specification's Advance: the state moves past the tokens of a path.</summary>
    /// <param name="slot">The state's slot, at most once a step.</param>
    /// <param name="tokens">Number of tokens, 0 or more.</param>
    /// <param name="logits">Which rows want logits.</param>
    /// <inheritdoc cref="Add" path="/exception"/>
    public void Advance(int slot, int tokens, LogitRows logits = Kernels.LogitRows.Default) => Add(slot, TokenTree.Path(tokens), moves: true, logits);

    /// <summary>Adds the specification's Verify: the state is read, not moved; a path of the tree may be committed afterwards.</summary>
    /// <param name="slot">The state's slot, at most once a step.</param>
    /// <param name="tree">The tokens' topology, at most <see cref="TokenTree.MaxNodes"/> nodes.</param>
    /// <param name="logits">Which rows want logits.</param>
    /// <inheritdoc cref="Add" path="/exception"/>
    public void Verify(int slot, TokenTree tree, LogitRows logits = Kernels.LogitRows.Default) => Add(slot, tree, moves: false, logits);

    /// <summary>Adds a sequence's new tokens.</summary>
    /// <param name="slot">The state's slot, at most once a step.</param>
    /// <param name="tree">Their topology; a path where the entry moves (0 tokens are allowed).</param>
    /// <param name="moves">True: the state moves past them. False: verification, at most <see cref="TokenTree.MaxNodes"/> nodes.</param>
    /// <param name="logits">Which rows want logits.</param>
    /// <exception cref="ArgumentException">The slot is negative or already in the step, the tree does not fit, or the step would pass 2^31 tokens.</exception>
    /// <exception cref="InvalidOperationException">The step has begun; <see cref="Clear"/> it first.</exception>
    public void Add(int slot, TokenTree tree, bool moves, LogitRows logits = Kernels.LogitRows.Default)
    {
        ArgumentNullException.ThrowIfNull(tree);
        if (Status != Phase.Open) throw new InvalidOperationException("the step has begun; Clear it before adding");
        ArgumentOutOfRangeException.ThrowIfNegative(slot);
        for (int i = 0; i < Entries; i++)
            if (_entries[i].Slot == slot) throw new ArgumentException($"slot: {slot} is already in this step", nameof(slot));
        if (moves && !tree.IsPath) throw new ArgumentException("tree: an entry that moves takes a path, got a tree with branches", nameof(tree));
        if (!moves && tree.Count > TokenTree.MaxNodes)
            throw new ArgumentException($"tree: an entry that does not move has at most {TokenTree.MaxNodes} nodes, got {tree.Count}", nameof(tree));

        int tokens = Tokens + tree.Count;
        if (tokens < 0 || tokens > Array.MaxLength) throw new ArgumentException($"tree: a step holds at most {Array.MaxLength} tokens, has {Tokens} and got {tree.Count} more", nameof(tree));
        if (logits == Kernels.LogitRows.Default) logits = moves ? Kernels.LogitRows.Last : Kernels.LogitRows.All;
        int wanted = logits switch
        {
            Kernels.LogitRows.None => 0,
            Kernels.LogitRows.Last => Math.Min(1, tree.Count),
            Kernels.LogitRows.All => tree.Count,
            _ => throw new ArgumentOutOfRangeException(nameof(logits), logits, "unknown choice of rows"),
        };

        if (Entries == _entries.Length)
        {
            Array.Resize(ref _entries, 2 * Entries);
            Array.Resize(ref _offsets, 2 * Entries + 1);
        }

        Grow(ref _positions, tokens);
        Grow(ref _logitRows, LogitCount + wanted);
        _entries[Entries] = new StepEntry(slot, tree, moves, Tokens, LogitCount, wanted);
        for (int i = 0; i < wanted; i++) _logitRows[LogitCount + i] = tokens - wanted + i;
        _offsets[0] = 0;
        _offsets[++Entries] = tokens;
        Tokens = tokens;
        LogitCount += wanted;
        MaxDepth = Math.Max(MaxDepth, tree.Levels);
    }

    internal void Begin(AttentionState state, long stamp, ReadOnlySpan<int> lengths)
    {
        if (LayerDone.Length < state.Layers) LayerDone = new bool[state.Layers];
        Array.Clear(LayerDone);
        LayersDone = 0;
        for (int i = 0; i < Entries; i++)
        {
            StepEntry entry = _entries[i];
            int start = lengths[entry.Slot];
            for (int t = 0; t < entry.Count; t++) _positions[entry.Offset + t] = start + entry.Tree.Depth(t);
        }

        State = state;
        Stamp = stamp;
        Status = Phase.Begun;
    }

    /// <summary>As it was before it began.</summary>
    internal void Reopen()
    {
        State = null;
        Status = Phase.Open;
    }

    private static void Grow(ref int[] array, int size)
    {
        if (array.Length < size) Array.Resize(ref array, Math.Max(size, 2 * array.Length));
    }
}
