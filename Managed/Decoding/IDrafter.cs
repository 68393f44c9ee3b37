namespace Treeline;

/// <summary>Guesses what comes next: for each of the next tokens some candidates, best first. A <see cref="TreePolicy"/> says which of their combinations are verified.</summary>
/// <remarks>
/// Guesses decide how fast a text comes, never what it says (typical acceptance excepted). Called in the middle of a step: it reads sequences, and changes none.
/// What it throws ends the sequences that it was asked about (<see cref="Sequence.Error"/>).
/// </remarks>
public interface IDrafter
{
    /// <summary>How many tokens ahead it guesses at most.</summary>
    int Levels { get; }

    /// <summary>How many candidates it has for each of them.</summary>
    int Ranks { get; }

    /// <summary>Called once before a step, with all sequences that are to be drafted for: for drafters that work on many at once.</summary>
    /// <param name="sequences">The sequences.</param>
    void Prepare(ReadOnlySpan<Sequence> sequences) { }

    /// <summary>Guesses for one sequence.</summary>
    /// <param name="sequence">The sequence; its last token is the root of the tree.</param>
    /// <param name="guesses">Receives <c>[levels, ranks]</c>: the r-th best guess for the token l + 1 places after the last; -1 where there is none.</param>
    void Draft(Sequence sequence, Span<int> guesses);
}
