using Treeline.Kernels;

namespace Treeline;

/// <summary>One text of a <see cref="DecodingBatch"/>: its tokens, its options, its slot of the state.</summary>
/// <remarks>
/// Between steps it can be read, forked, saved, cancelled, continued. Once decoding, its state holds every token but the last, which is the root of the next step's tree.
/// It keeps its slot, finished or not, until it is disposed.
/// </remarks>
public sealed class Sequence : IDisposable
{
    private readonly DecodingBatch _batch;
    private int[] _tokens;
    private float[] _logProbabilities = [];
    private int[] _stopTokens = [];
    private TextStream? _text;
    private int _textTokens;                                // generated tokens that _text has seen

    internal Sequence(DecodingBatch batch, int slot, ReadOnlySpan<int> tokens, GenerationOptions options)
    {
        _batch = batch;
        Slot = slot;
        _tokens = tokens.ToArray();
        Count = PromptLength = tokens.Length;
        Options = options;
        Use(options);
    }

    /// <summary>How it is continued.</summary>
    public GenerationOptions Options { get; private set; }

    /// <summary>Number of tokens: prompt and text.</summary>
    public int Count { get; private set; }

    /// <summary>Number of tokens that were given, not generated: the last prompt and all before it.</summary>
    public int PromptLength { get; private set; }

    /// <summary>All tokens: prompt and text. Valid until the next step.</summary>
    public ReadOnlySpan<int> Tokens => _tokens.AsSpan(0, Count);

    /// <summary>The tokens generated since the last prompt. Valid until the next step.</summary>
    public ReadOnlySpan<int> Generated => _tokens.AsSpan(PromptLength, Count - PromptLength);

    /// <summary>Log-probabilities of <see cref="Generated"/>; empty unless the options ask for them. Valid until the next step.</summary>
    public ReadOnlySpan<float> LogProbabilities => Options.LogProbabilities ? _logProbabilities.AsSpan(0, Count - PromptLength) : default;

    /// <summary>Why it has ended; <see cref="FinishReason.None"/> while it goes on.</summary>
    public FinishReason FinishReason { get; private set; }

    /// <summary>True where no step gives it more tokens.</summary>
    public bool IsFinished => FinishReason != FinishReason.None;

    /// <summary>What ended it where it has failed; <see cref="Recompute"/> mends it.</summary>
    public Exception? Error { get; private set; }

    /// <summary>True once it has left the batch.</summary>
    public bool IsDisposed { get; private set; }

    internal int Slot { get; }

    internal Acceptance Rule { get; private set; }

    /// <summary>What edits its logits, the penalty first; empty where nothing does.</summary>
    internal ILogitsProcessor[] Processors { get; private set; } = [];

    internal IDrafter? Drafter { get; set; }

    internal TreeChooser? Chooser { get; set; }

    /// <summary>True where the batch keeps the hidden state that gave the last token.</summary>
    internal bool HasHidden { get; set; }

    // The step in progress.
    internal DraftTree Tree { get; set; } = DraftTree.Single;

    internal int Rung { get; set; }

    internal int[] Guesses { get; set; } = [];

    /// <summary>True where the tree was cut for want of room: what it accepts says nothing about its rung.</summary>
    internal bool IsCut { get; set; }

    /// <summary>The node that gave the last token.</summary>
    internal int LastPathNode { get; set; }

    /// <summary>Rows that it brought into the last step.</summary>
    internal int Rows { get; set; }

    /// <summary>Text since the last call, whole characters, without what may yet turn out to be a stop string; empty where there is none.</summary>
    /// <exception cref="InvalidOperationException">The model has no tokenizer.</exception>
    public string TakeText()
    {
        RequireAlive();
        if (_batch.Model.Tokenizer is null) throw new InvalidOperationException("the model has no tokenizer; read Generated");
        AdvanceText();
        return _text!.Take();
    }

    /// <summary>Ends it between two steps; it stays usable (<see cref="Resume"/>).</summary>
    public void Cancel()
    {
        RequireAlive();
        if (!IsFinished) Finish(FinishReason.Cancelled);
    }

    /// <summary>Goes on after a cancellation, as if there had been none.</summary>
    public void Resume()
    {
        RequireAlive();
        if (FinishReason == FinishReason.Cancelled) FinishReason = FinishReason.None;
    }

    /// <summary>Goes on after its end with some more tokens of the caller's: the next turn of a dialogue. The text so far becomes part of the prompt.</summary>
    /// <param name="more">Tokens to append; may be empty.</param>
    /// <param name="options">How to go on; null: as before.</param>
    /// <exception cref="ArgumentException">A token is outside the vocabulary, or an option does not fit.</exception>
    /// <exception cref="OutOfCapacityException">There is no room for so many tokens; nothing has changed.</exception>
    /// <exception cref="InvalidOperationException">It has failed; <see cref="Recompute"/> it first.</exception>
    public void Continue(ReadOnlySpan<int> more, GenerationOptions? options = null)
    {
        RequireIdle();
        RequireWhole();
        options ??= Options;
        _batch.Check(more, Count, options);
        EnsureRoom(more.Length);
        more.CopyTo(_tokens.AsSpan(Count));
        Count += more.Length;
        PromptLength = Count;
        FinishReason = FinishReason.None;
        Use(options);
    }

    /// <summary>Makes a failed sequence whole again: its slot is emptied, its tokens are fed anew by the next steps.</summary>
    public void Recompute()
    {
        RequireIdle();
        _batch.State.Reset(Slot);
        HasHidden = false;
        if (FinishReason != FinishReason.Failed) return;
        FinishReason = FinishReason.None;
        Error = null;
    }

    /// <summary>Another sequence with the same past, in a free slot.</summary>
    /// <param name="options">How the fork goes on; null: as this one. With the same seed it would say the same.</param>
    /// <exception cref="InvalidOperationException">No slot is free, or this one has failed.</exception>
    public Sequence Fork(GenerationOptions? options = null)
    {
        RequireIdle();
        RequireWhole();
        return _batch.Fork(this, options ?? Options);
    }

    /// <summary>Writes its tokens, its options (processors and drafters of your own excepted) and its state: versioned, checksummed.</summary>
    /// <param name="to">Receives the bytes.</param>
    /// <exception cref="InvalidOperationException">It has failed; <see cref="Recompute"/> it first.</exception>
    public void Save(Stream to)
    {
        RequireIdle();
        ArgumentNullException.ThrowIfNull(to);
        RequireWhole();
        SequenceSnapshot.Write(_batch, this, to);
    }

    /// <summary>Leaves the batch: its slot is free for another one. Harmless when repeated.</summary>
    /// <exception cref="InvalidOperationException">A step is in progress, and goes on.</exception>
    public void Dispose()
    {
        if (IsDisposed) return;
        _batch.RequireNoStep();
        IsDisposed = true;
        _batch.Remove(this);
    }

    internal int TakenCharacters => _text?.Taken ?? 0;

    /// <summary>A copy for a fork or a restored snapshot: the same tokens, text already taken counts as taken.</summary>
    internal void CopyPast(Sequence from) => SetPast(from.PromptLength, from.FinishReason, from.LogProbabilities, from.TakenCharacters);

    internal void SetPast(int promptLength, FinishReason reason, ReadOnlySpan<float> logProbabilities, int takenCharacters)
    {
        PromptLength = promptLength;
        FinishReason = reason;
        if (Options.LogProbabilities)
        {
            _logProbabilities = new float[Math.Max(Count - PromptLength, 16)];
            _logProbabilities.AsSpan().Fill(float.NaN);     // generated without being asked for
            logProbabilities.CopyTo(_logProbabilities);
        }

        if (_batch.Model.Tokenizer is null) return;
        NewText();
        AdvanceText();
        _text!.Skip(takenCharacters);
    }

    /// <summary>Room for some tokens past <see cref="Count"/>: a node's path is written there for the processors.</summary>
    internal Span<int> TokensAndRoom(int room)
    {
        EnsureRoom(room);
        return _tokens;
    }

    /// <summary>Appends a generated token; false where the text ends with it.</summary>
    internal bool Emit(int token, float logProbability)
    {
        EnsureRoom(1);
        _tokens[Count++] = token;
        int generated = Count - PromptLength;
        if (Options.LogProbabilities)
        {
            if (_logProbabilities.Length < generated) Array.Resize(ref _logProbabilities, 2 * generated);
            _logProbabilities[generated - 1] = logProbability;
        }

        if (Array.IndexOf(_stopTokens, token) >= 0) Finish(FinishReason.StopToken);
        else if (Options.StopStrings.Count > 0 && AdvanceText()) Finish(FinishReason.StopString);
        else if (generated >= Options.MaxTokens) Finish(FinishReason.MaxTokens);
        else if (Count > _batch.Limit) Finish(FinishReason.Capacity);   // this one could not be fed
        return !IsFinished;
    }

    internal void Finish(FinishReason reason) => FinishReason = reason;

    internal void Fail(Exception error)
    {
        Error = error;
        FinishReason = FinishReason.Failed;
    }

    private void Use(GenerationOptions options)
    {
        Options = options;
        Rule = options.Rule;
        _stopTokens = [.. options.StopTokens ?? _batch.Model.StopTokens];
        Processors = options.RepetitionPenalty == 1 ? [.. options.Processors] : [new RepetitionPenalty(options.RepetitionPenalty), .. options.Processors];
        EnsureRoom(Math.Min(options.MaxTokens, 4096) + 1);
        if (options.LogProbabilities) _logProbabilities = new float[Math.Min(options.MaxTokens, 4096)];
        _batch.Equip(this);
        if (_batch.Model.Tokenizer is not null) NewText();
    }

    // Where a text's first token stands for another text than elsewhere (SentencePiece), a prompt begins with BOS: it alone is no text that goes on.
    private void NewText()
    {
        _text = new TextStream(_batch.Model.Tokenizer!, Options.StopStrings, continues: PromptLength > 1);
        _textTokens = 0;
    }

    /// <summary>Shows the new tokens to the text; true where a stop string is complete.</summary>
    private bool AdvanceText()
    {
        while (_textTokens < Count - PromptLength)
        {
            int token = _tokens[PromptLength + _textTokens++];
            if (Array.IndexOf(_stopTokens, token) >= 0) continue;
            if (_text!.Push(token)) return true;
        }

        // A cancelled or failed text may go on.
        if (IsFinished && FinishReason is not (FinishReason.StopString or FinishReason.Cancelled or FinishReason.Failed)) _text!.End();
        return false;
    }

    private void EnsureRoom(int more)
    {
        if (_tokens.Length < Count + more) Array.Resize(ref _tokens, Math.Max(Count + more, 2 * _tokens.Length));
    }

    private void RequireAlive() => ObjectDisposedException.ThrowIf(IsDisposed, this);

    private void RequireIdle()
    {
        RequireAlive();
        _batch.RequireNoStep();
    }

    private void RequireWhole()
    {
        if (FinishReason == FinishReason.Failed) throw new InvalidOperationException($"the sequence has failed, Recompute it first: {Error!.Message}");
    }
}
