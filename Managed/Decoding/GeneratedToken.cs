namespace Treeline;

/// <summary>A token of a generated text.</summary>
/// <param name="Token">Its id.</param>
/// <param name="LogProbability">Its log-probability under the model, where <see cref="GenerationOptions.LogProbabilities"/> asks for it.</param>
public readonly record struct GeneratedToken(int Token, float? LogProbability);

/// <summary>Why a text has ended.</summary>
public enum FinishReason
{
    /// <summary>It has not.</summary>
    None,

    /// <summary>A stop token.</summary>
    StopToken,

    /// <summary>A stop string.</summary>
    StopString,

    /// <summary>The most tokens that the options allow.</summary>
    MaxTokens,

    /// <summary>The most positions that the model or the state takes.</summary>
    Capacity,

    /// <summary>It was cancelled.</summary>
    Cancelled,

    /// <summary>An error, <see cref="Sequence.Error"/>.</summary>
    Failed,
}
