namespace Treeline;

/// <summary>Edits the logits from which a token is chosen: penalties, constrained decoding.</summary>
/// <remarks>
/// Called for each node of a verified tree with that node's own path, so that what it does is right on branches too.
/// What it writes must depend on the path and the logits alone: then the text does not depend on speculation or on other sequences.
/// Negative infinity excludes a token; a row with NaN or without any finite number ends the sequence with an error.
/// </remarks>
public interface ILogitsProcessor
{
    /// <summary>Edits one row.</summary>
    /// <param name="path">All tokens before the one to be chosen: prompt, text so far, the node's path in the tree.</param>
    /// <param name="logits">The row, one number per token of the vocabulary.</param>
    void Process(ReadOnlySpan<int> path, Span<float> logits);
}
