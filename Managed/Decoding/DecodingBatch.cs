using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Treeline.Kernels;

namespace Treeline;

/// <summary>How a <see cref="DecodingBatch"/> is made.</summary>
public sealed record DecodingBatchOptions
{
    /// <summary>Most sequences at once.</summary>
    public int Slots { get; init; } = 8;

    /// <summary>Most positions of a sequence where the model's state grows (softmax); of no effect elsewhere.</summary>
    public int Capacity { get; init; } = 4096;

    /// <summary>Most tokens of prompts in one step: how long the other sequences wait at a time.</summary>
    public int PrefillChunk { get; init; } = 256;

    /// <summary>Receives what happens to sequences; null: nothing is logged.</summary>
    public ILogger? Logger { get; init; }
}

/// <summary>Decodes several sequences together: each step is one forward pass of the model for all of them.</summary>
/// <remarks>
/// Sequences join, leave, fork and are cancelled between any two steps; prompts are fed in chunks beside the others' decoding. On a backend that is lossless to the bit
/// each text is the one that it would be alone (typical acceptance included). Not for several threads at once.
/// </remarks>
public sealed partial class DecodingBatch : IDisposable
{
    private readonly ILogger _logger;
    private readonly int _prefillChunk;
    private readonly List<Sequence> _sequences = [];
    private readonly Stack<int> _freeSlots = new();
    private readonly List<IDrafter> _drafters = [];
    private readonly Dictionary<IDrafter, TreeChooser> _choosers = new(ReferenceEqualityComparer.Instance);     // the latest of each drafter, where trees are picked by measuring
    private readonly DeviceTensor? _hidden;                 // each slot's last hidden state, where there are heads to read it
    private readonly LookupDrafter _lookup = new();
    private readonly MedusaDrafter? _medusa;
    private readonly TokenSelector _selector;
    private bool _disposed;

    /// <summary>Creates a batch without sequences.</summary>
    /// <param name="model">The model; it must outlive the batch.</param>
    /// <param name="options">Sizes; null: the defaults.</param>
    /// <exception cref="ArgumentOutOfRangeException">A size is below 1.</exception>
    public DecodingBatch(CausalModel model, DecodingBatchOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        options ??= new DecodingBatchOptions();
        if (options.PrefillChunk < 1) throw new ArgumentOutOfRangeException(nameof(options), options.PrefillChunk, "PrefillChunk: expected 1 or more");
        Model = model;
        _prefillChunk = options.PrefillChunk;
        _logger = options.Logger ?? NullLogger.Instance;
        State = model.CreateState(options.Slots, options.Capacity);
        Limit = State.Grows ? Math.Min(options.Capacity, model.MaxPositions) : model.MaxPositions;
        for (int slot = options.Slots - 1; slot >= 0; slot--) _freeSlots.Push(slot);
        _selector = new TokenSelector(model.Backend);
        if (model.Medusa is null) return;
        _hidden = model.Backend.Allocate(ElementType.Float32, options.Slots, model.Config.HiddenSize);
        _medusa = new MedusaDrafter(model, _hidden);
        _hiddenOfSlot = [.. Enumerable.Range(0, options.Slots).Select(slot => _hidden.Slice(0, slot, 1))];
        _hiddenRow = model.Backend.Allocate(ElementType.Int32, 1);
    }

    /// <summary>The model.</summary>
    public CausalModel Model { get; }

    /// <summary>The sequences, in the order in which they joined, finished ones included until they are disposed.</summary>
    public IReadOnlyList<Sequence> Sequences => _sequences;

    /// <summary>How many more sequences may join.</summary>
    public int FreeSlots => _freeSlots.Count;

    /// <summary>What has been done so far.</summary>
    public DecodingStatistics Statistics { get; } = new();

    internal AttentionState State { get; }

    /// <summary>Most positions of a sequence.</summary>
    internal int Limit { get; }

    /// <summary>A sequence joins; the next steps feed its prompt.</summary>
    /// <param name="prompt">Its tokens, at least one.</param>
    /// <param name="options">How it is continued; null: the defaults.</param>
    /// <exception cref="ArgumentException">The prompt is empty, a token is outside the vocabulary, or an option does not fit.</exception>
    /// <exception cref="OutOfCapacityException">The prompt is longer than the model or the state takes.</exception>
    /// <exception cref="InvalidOperationException">No slot is free, or a step is in progress.</exception>
    public Sequence Add(ReadOnlySpan<int> prompt, GenerationOptions? options = null)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        RequireNoStep();
        options ??= new GenerationOptions();
        if (prompt.IsEmpty) throw new ArgumentException("prompt: expected at least one token, got none", nameof(prompt));
        Check(prompt, 0, options);
        return Join(prompt, options);
    }

    /// <summary>A sequence joins; the next steps feed its prompt.</summary>
    /// <param name="prompt">Its text, not empty (a text from nothing begins with the model's first token: give that as a token).</param>
    /// <param name="options">How it is continued; null: the defaults.</param>
    /// <inheritdoc cref="Add(ReadOnlySpan{int}, GenerationOptions?)" path="/exception"/>
    public Sequence Add(string prompt, GenerationOptions? options = null) => Add(Model.EncodePrompt(prompt), options);

    /// <summary>A saved sequence joins and goes on where it was.</summary>
    /// <param name="from">What <see cref="Sequence.Save"/> wrote.</param>
    /// <param name="options">How it goes on; null: as it was saved (needed where it had processors or a drafter of its own, which are not saved).</param>
    /// <exception cref="SnapshotException">The bytes are damaged, of an unknown version, or of another model.</exception>
    /// <exception cref="OutOfCapacityException">It is longer than the state takes.</exception>
    /// <exception cref="InvalidOperationException">No slot is free, or a step is in progress.</exception>
    public Sequence Restore(Stream from, GenerationOptions? options = null)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        RequireNoStep();
        ArgumentNullException.ThrowIfNull(from);
        SequenceSnapshot content = SequenceSnapshot.Read(this, from);
        if (options is null && content.HasCode) throw new SnapshotException("snapshot: the sequence had processors or a drafter of its own, which are not saved: give its options");
        try
        {
            Check([], content.Tokens.Length - 1, options ?? content.Options);       // the state holds all but the last
        }
        catch (ArgumentException e) when (options is null)
        {
            throw new SnapshotException($"snapshot: {e.Message}", e);
        }

        options ??= content.Options;
        return Join(content.Tokens, options, sequence =>
        {
            State.Restore(sequence.Slot, content.State);
            int length = State.Length(sequence.Slot);
            if (length >= content.Tokens.Length) throw new SnapshotException($"snapshot: the state has {length} tokens, the text {content.Tokens.Length}, expected fewer in the state");
            sequence.SetPast(content.PromptLength, content.FinishReason, content.LogProbabilities, content.TakenCharacters);
            if (_hidden is null || content.Hidden.Length != _hidden.RowLength) return;
            Model.Backend.Write<float>(_hiddenOfSlot[sequence.Slot], content.Hidden);
            sequence.HasHidden = true;
        });
    }

    /// <summary>Ends all sequences and gives the memory back; the model stays. Harmless when repeated.</summary>
    /// <exception cref="InvalidOperationException">A step is in progress, and goes on.</exception>
    public void Dispose()
    {
        if (_disposed) return;
        RequireNoStep();
        _disposed = true;
        foreach (Sequence sequence in _sequences) sequence.Dispose();
        _sequences.Clear();
        _medusa?.Dispose();
        _selector.Dispose();
        _hiddenRow?.Dispose();
        _hidden?.Dispose();
        State.Dispose();
    }

    internal Sequence Fork(Sequence from, GenerationOptions options)
    {
        options.Validate(Model);
        return Join(from.Tokens, options, sequence =>
        {
            State.Fork(from.Slot, sequence.Slot);
            sequence.CopyPast(from);
            if (from.HasHidden) KeepHidden(_hidden!, from.Slot, sequence);
        });
    }

    /// <summary>Refuses tokens or options before anything is computed.</summary>
    internal void Check(ReadOnlySpan<int> tokens, int before, GenerationOptions options)
    {
        options.Validate(Model);
        foreach (int token in tokens)
            if ((uint)token >= (uint)Model.VocabularySize) throw new ArgumentException($"prompt: expected tokens from 0 to {Model.VocabularySize - 1}, got {token}", nameof(tokens));
        if ((long)before + tokens.Length > Limit)
            throw new OutOfCapacityException($"prompt: expected at most {Limit} tokens, as many as {(Limit == Model.MaxPositions ? "the model has positions" : "the state was made for")}, got {(long)before + tokens.Length}");
    }

    /// <summary>Gives a sequence the drafter and the trees that its options ask for.</summary>
    internal void Equip(Sequence sequence)
    {
        GenerationOptions options = sequence.Options;
        IDrafter? before = sequence.Drafter;
        IDrafter? drafter = options.CustomDrafter ?? options.Drafter switch
        {
            Drafter.Medusa => _medusa,
            Drafter.Lookup => _lookup,
            _ => null,
        };
        sequence.Drafter = drafter;
        sequence.Chooser = null;
        Forget(before);
        if (drafter is null) return;
        if (!_drafters.Exists(known => ReferenceEquals(known, drafter))) _drafters.Add(drafter);
        sequence.Guesses = new int[drafter.Levels * drafter.Ranks];
        // Measuring may decide what is tried, never what a text says: under typical acceptance the tree has a say in it.
        bool measured = options.TreePolicy.List is null && options.Rule != Acceptance.Typical;
        TreeChooser? latest = measured ? _choosers.GetValueOrDefault(drafter) : null;
        sequence.Chooser = latest?.Copy() ?? new TreeChooser(TreeLadder.Create(options.TreePolicy, drafter.Levels, drafter.Ranks, measured));
        if (measured) _choosers[drafter] = sequence.Chooser;
    }

    internal void Remove(Sequence sequence)
    {
        if (_disposed) return;
        _sequences.Remove(sequence);
        State.Reset(sequence.Slot);
        _freeSlots.Push(sequence.Slot);
        Forget(sequence.Drafter);
        LogLeft(_logger, sequence.Slot, sequence.Count, sequence.FinishReason);
    }

    internal float[] ReadHidden(Sequence sequence) => sequence.HasHidden ? Model.Backend.Download<float>(_hiddenOfSlot[sequence.Slot]) : [];

    /// <summary>Refuses what must not happen in the middle of a step, such as a call from a processor, a drafter or another thread.</summary>
    internal void RequireNoStep()
    {
        if (Volatile.Read(ref _inStep) != 0) throw InStep();
    }

    private static InvalidOperationException InStep() => new("the batch is in the middle of a step; calls on one batch must follow each other");

    /// <summary>A sequence on a free slot; <paramref name="past"/> gives it its state. If that fails, the slot stays free and empty.</summary>
    private Sequence Join(ReadOnlySpan<int> tokens, GenerationOptions options, Action<Sequence>? past = null)
    {
        if (!_freeSlots.TryPeek(out int slot)) throw new InvalidOperationException($"all {State.Slots} slots are taken; dispose a sequence first");
        var sequence = new Sequence(this, slot, tokens, options);
        try
        {
            past?.Invoke(sequence);
        }
        catch
        {
            State.Reset(slot);
            Forget(sequence.Drafter);
            throw;
        }

        _freeSlots.Pop();
        _sequences.Add(sequence);
        LogJoined(_logger, slot, tokens.Length);
        return sequence;
    }

    /// <summary>Lets go of a caller's drafter that no sequence uses any more.</summary>
    private void Forget(IDrafter? drafter)
    {
        if (drafter is null || ReferenceEquals(drafter, _medusa) || ReferenceEquals(drafter, _lookup)) return;
        if (_sequences.Exists(sequence => ReferenceEquals(sequence.Drafter, drafter))) return;
        _drafters.RemoveAll(known => ReferenceEquals(known, drafter));
        _choosers.Remove(drafter);
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "sequence in slot {Slot} joined with {Tokens} tokens")]
    private static partial void LogJoined(ILogger logger, int slot, int tokens);

    [LoggerMessage(Level = LogLevel.Debug, Message = "sequence in slot {Slot} left with {Tokens} tokens: {Reason}")]
    private static partial void LogLeft(ILogger logger, int slot, int tokens, FinishReason reason);

    [LoggerMessage(Level = LogLevel.Error, Message = "sequence in slot {Slot} failed after {Tokens} tokens")]
    private static partial void LogFailed(ILogger logger, Exception error, int slot, int tokens);

    [LoggerMessage(Level = LogLevel.Trace, Message = "step: {Sequences} sequences, {Rows} tokens, {Milliseconds} ms")]
    private static partial void LogStep(ILogger logger, int sequences, int rows, double milliseconds);
}
