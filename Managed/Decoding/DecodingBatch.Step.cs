using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Treeline.Kernels;

namespace Treeline;

public sealed partial class DecodingBatch
{
    private readonly Step _step = new();
    private readonly StepCost _cost = new();
    private readonly List<Sequence> _entries = [];          // whose tokens each entry of the step holds
    private readonly List<Sequence> _drafting = [];
    private readonly DeviceTensor[] _hiddenOfSlot = [];
    private readonly DeviceTensor? _hiddenRow;
    private readonly int[] _oneRow = new int[1];
    private int[] _tokens = new int[64];
    private int[] _accepted = new int[64];
    private int _prefilled;                                 // tokens of prompts in this step
    private int _inStep;                                    // 1 during a step

    /// <summary>One step: feeds prompts, drafts, runs the model once for all sequences, chooses, commits. False where no sequence wanted one.</summary>
    /// <remarks>What fails for one sequence ends that one (<see cref="Sequence.Error"/>), the others go on. An exception comes only where no sequence is to blame or was harmed: then nothing has moved.</remarks>
    /// <param name="cancellation">Looked at before the step; nothing has happened if it throws.</param>
    /// <exception cref="OperationCanceledException">It was cancelled; the sequences stay usable.</exception>
    /// <exception cref="InvalidOperationException">A step is in progress, and goes on.</exception>
    public bool Step(CancellationToken cancellation = default)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        cancellation.ThrowIfCancellationRequested();
        if (Interlocked.Exchange(ref _inStep, 1) != 0) throw InStep();
        try
        {
            return StepOnce();
        }
        finally
        {
            Volatile.Write(ref _inStep, 0);
        }
    }

    /// <summary>Steps until every sequence has ended.</summary>
    /// <param name="cancellation">Looked at between steps.</param>
    /// <exception cref="OperationCanceledException">It was cancelled; the sequences stay usable.</exception>
    public void Run(CancellationToken cancellation = default)
    {
        while (Step(cancellation)) { }
    }

    private bool StepOnce()
    {
        long start = Stopwatch.GetTimestamp();
        Plan();
        if (_entries.Count == 0) return false;
        Draft();
        if (_entries.Count == 0) return true;
        Fill();
        long drafted = Stopwatch.GetTimestamp();
        Statistics.DraftTime += Stopwatch.GetElapsedTime(start, drafted);
        try
        {
            ForwardOutput output = Model.Forward(State, _step, _tokens.AsSpan(0, _step.Tokens));
            Statistics.Forwards++;
            Model.Backend.Synchronize();                    // so that the forward pass's time is its own
            long forwarded = Stopwatch.GetTimestamp();
            TimeSpan forward = Stopwatch.GetElapsedTime(drafted, forwarded), prefill = forward * ((double)_prefilled / _step.Tokens);
            Statistics.PrefillTime += prefill;
            Statistics.ForwardTime += forward - prefill;
            Statistics.PromptTokens += _prefilled;
            if (_step.LogitCount > 0) _selector.Choose(_step, _entries, _tokens, output.Logits);
            Emit();
            long selected = Stopwatch.GetTimestamp();
            Statistics.SelectTime += Stopwatch.GetElapsedTime(forwarded, selected);
            Commit(output);
            long committed = Stopwatch.GetTimestamp();
            Statistics.CommitTime += Stopwatch.GetElapsedTime(selected, committed);
            TimeSpan all = Stopwatch.GetElapsedTime(start, committed);
            if (_prefilled == 0) _cost.Record(_step.Tokens, all.TotalSeconds);
            if (_logger.IsEnabled(LogLevel.Trace)) LogStep(_logger, _entries.Count, _step.Tokens, all.TotalMilliseconds);
        }
        catch (Exception e)
        {
            if (!Blame(e)) throw;
        }

        return true;
    }

    /// <summary>Who takes part, with how many tokens, and which tree each decoding sequence would like.</summary>
    private void Plan()
    {
        _step.Clear();
        _entries.Clear();
        _prefilled = 0;
        int allRows = 0;
        foreach (Sequence sequence in _sequences)
            if (!sequence.IsFinished) allRows += sequence.Rows;
        foreach (Sequence sequence in _sequences)
        {
            if (sequence.IsFinished) continue;
            int fed = State.Length(sequence.Slot), pending = sequence.Count - fed, room = Limit - fed;
            if (room < pending)
            {
                sequence.Finish(FinishReason.Capacity);
                continue;
            }

            sequence.Tree = DraftTree.Single;
            sequence.IsCut = true;                          // until a rung of its ladder is tried
            // A prompt's last token is no tree's root, however the prompt was cut into steps: under typical acceptance a tree has a say in the text.
            if (pending > 1 || sequence.Count == sequence.PromptLength)
            {
                sequence.Rows = Math.Min(pending, _prefillChunk - _prefilled);
                if (sequence.Rows == 0) continue;
                _prefilled += sequence.Rows;
            }
            else
            {
                ChooseTree(sequence, room, allRows - sequence.Rows);
                sequence.Rows = sequence.Tree.Count;
            }

            _entries.Add(sequence);
        }
    }

    private void ChooseTree(Sequence sequence, int room, int otherRows)
    {
        if (sequence.Drafter is null || (ReferenceEquals(sequence.Drafter, _medusa) && !sequence.HasHidden)) return;
        int levels = Math.Min(room, sequence.Options.MaxTokens - sequence.Generated.Length);
        sequence.Rung = sequence.Chooser!.Next(_cost, otherRows);
        DraftTree tree = sequence.Chooser.Ladder[sequence.Rung];
        sequence.Tree = tree.Cut(levels);
        sequence.IsCut = !ReferenceEquals(sequence.Tree, tree);
    }

    /// <summary>Asks the drafters. What one throws ends the sequences that it was asked about, not the others.</summary>
    private void Draft()
    {
        foreach (IDrafter drafter in _drafters)
        {
            _drafting.Clear();
            foreach (Sequence sequence in _entries)
                if (sequence.Tree.Count > 1 && ReferenceEquals(sequence.Drafter, drafter)) _drafting.Add(sequence);
            if (_drafting.Count == 0) continue;
            int asked = 0;
#pragma warning disable CA1031 // a drafter is the caller's code: whatever it throws is kept as the sequence's error
            try
            {
                drafter.Prepare(CollectionsMarshal.AsSpan(_drafting));
            }
            catch (Exception e)
            {
                for (; asked < _drafting.Count; asked++) Fail(_drafting[asked], e);
            }

            for (; asked < _drafting.Count; asked++)
            {
                try
                {
                    Guess(drafter, _drafting[asked]);
                }
                catch (Exception e)
                {
                    Fail(_drafting[asked], e);
                }
            }
#pragma warning restore CA1031
        }

        _entries.RemoveAll(static sequence => sequence.FinishReason == FinishReason.Failed);
    }

    /// <summary>A sequence gets as many levels as there are guesses.</summary>
    private void Guess(IDrafter drafter, Sequence sequence)
    {
        drafter.Draft(sequence, sequence.Guesses);
        int levels = 0, ranks = drafter.Ranks;
        while ((levels + 1) * ranks <= sequence.Guesses.Length && (uint)sequence.Guesses[levels * ranks] < (uint)Model.VocabularySize) levels++;
        sequence.Tree = sequence.Tree.Cut(levels + 1);
        sequence.IsCut |= levels == 0;                      // no guess at all: nothing was tried
        sequence.Rows = sequence.Tree.Count;
    }

    /// <summary>The step's entries and tokens.</summary>
    private void Fill()
    {
        int total = 0;
        foreach (Sequence sequence in _entries) total += sequence.Rows;
        if (_tokens.Length < total) Array.Resize(ref _tokens, Math.Max(total, 2 * _tokens.Length));
        foreach (Sequence sequence in _entries)
        {
            Span<int> to = _tokens.AsSpan(_step.Tokens, sequence.Rows);
            int fed = State.Length(sequence.Slot);
            if (sequence.Tree.Count > 1)
            {
                sequence.Tree.Fill(sequence.Tokens[^1], sequence.Guesses, sequence.Drafter!.Ranks, to);
                foreach (ref int token in to)
                    if ((uint)token >= (uint)Model.VocabularySize) token = to[0];   // a drafter's own mistake: a guess like any other
                _step.Verify(sequence.Slot, sequence.Tree.Tree);
            }
            else
            {
                sequence.Tokens.Slice(fed, sequence.Rows).CopyTo(to);
                _step.Advance(sequence.Slot, sequence.Rows, fed + sequence.Rows == sequence.Count ? LogitRows.Last : LogitRows.None);
            }
        }
    }

    /// <summary>Gives each sequence its tokens, up to the one that ends it, and cuts its accepted path there: the state then holds all but the last.</summary>
    private void Emit()
    {
        int width = _step.MaxDepth;
        if (_accepted.Length < _entries.Count * width) _accepted = new int[_entries.Count * width];
        for (int i = 0; i < _entries.Count; i++)
        {
            Sequence sequence = _entries[i];
            StepEntry entry = _step[i];
            Span<int> row = _accepted.AsSpan(i * width, width);
            row.Fill(-1);
            if (entry.LogitCount == 0) continue;
            if (_selector.Error(i) is { } error)
            {
                Fail(sequence, error);
                continue;
            }

#pragma warning disable CA1031 // a tokenizer may refuse a token: that ends its own sequence, not the others
            try
            {
                Emit(i, row);
            }
            catch (Exception e)
            {
                Fail(sequence, e);
            }
#pragma warning restore CA1031
        }
    }

    private void Emit(int i, Span<int> row)
    {
        Sequence sequence = _entries[i];
        StepEntry entry = _step[i];
        ReadOnlySpan<int> path = _selector.Path(i);
        int emitted = 0;
        while (emitted < path.Length)
        {
            (int token, float logProbability) = _selector.Emitted(i, emitted++);
            if (!sequence.Emit(token, logProbability)) break;
        }

        if (!entry.Moves) path[..emitted].CopyTo(row);
        sequence.LastPathNode = path[emitted - 1];
        if (!sequence.IsCut) sequence.Chooser!.Record(sequence.Rung, sequence.Tree, path);
        bool ended = emitted < path.Length;                 // then nobody asked for the next guess
        Statistics.Record(sequence.Tree.Count, tried: ended ? emitted - 1 : Math.Min(path.Length, sequence.Tree.Levels - 1), emitted);
    }

    /// <summary>Moves verified entries past their paths and keeps the hidden states that the Medusa heads will read.</summary>
    private void Commit(ForwardOutput output)
    {
        bool verified = false;
        for (int i = 0; i < _entries.Count; i++) verified |= !_step[i].Moves;
        if (verified) Model.Backend.Commit(State, _step, _accepted.AsSpan(0, _entries.Count * _step.MaxDepth));
        for (int i = 0; i < _entries.Count; i++)
        {
            Sequence sequence = _entries[i];
            sequence.HasHidden = false;
            if (_step[i].LogitCount == 0 || sequence.IsFinished && sequence.FinishReason == FinishReason.Failed) continue;
            if (_medusa is not null && ReferenceEquals(sequence.Drafter, _medusa)) KeepHidden(output.Hidden, _step[i].LogitOffset + sequence.LastPathNode, sequence);
        }
    }

    private void KeepHidden(DeviceTensor from, int row, Sequence sequence)
    {
        _oneRow[0] = row;
        Model.Backend.Write<int>(_hiddenRow!, _oneRow);
        Model.Backend.Embedding(from, _hiddenRow!, _hiddenOfSlot[sequence.Slot]);
        sequence.HasHidden = true;
    }

    /// <summary>Ends the sequences that an exception has harmed; false where there are none: then it is the caller's.</summary>
    private bool Blame(Exception error)
    {
        bool any = false;
        foreach (Sequence sequence in _entries)
        {
            // Broken: half-written. Or moved past its last token without having got the next one.
            if (!State.IsBroken(sequence.Slot) && State.Length(sequence.Slot) < sequence.Count) continue;
            Fail(sequence, error);
            any = true;
        }

        return any;
    }

    /// <summary>Its text ends here; what the state holds of it is not used again before <see cref="Sequence.Recompute"/>.</summary>
    private void Fail(Sequence sequence, Exception error)
    {
        sequence.Fail(error);
        sequence.HasHidden = false;
        LogFailed(_logger, error, sequence.Slot, sequence.Count);
    }
}
