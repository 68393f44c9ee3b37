namespace Treeline;

/// <summary>What decoding has done so far, and where its time went.</summary>
public sealed class DecodingStatistics
{
    private long[] _tried = [];
    private long[] _accepted = [];
    private long[] _trees = new long[65];

    /// <summary>Forward passes.</summary>
    public long Forwards { get; internal set; }

    /// <summary>Tokens of prompts that were fed (once more where a sequence is recomputed).</summary>
    public long PromptTokens { get; internal set; }

    /// <summary>Times that a sequence was given tokens: in a step, one per decoding sequence.</summary>
    public long SequenceSteps { get; internal set; }

    /// <summary>Tokens that became text.</summary>
    public long Tokens { get; internal set; }

    /// <summary>Tokens of a sequence's step on average: 1 without speculation.</summary>
    public double TokensPerStep => SequenceSteps == 0 ? 0 : (double)Tokens / SequenceSteps;

    /// <summary>For each depth (0: the first guess) how often guesses were tried there below an accepted path (not those below a text's last token).</summary>
    public ReadOnlySpan<long> Tried => _tried;

    /// <summary>For each depth how often one of them became text: <see cref="Tokens"/> is their sum and <see cref="SequenceSteps"/>.</summary>
    public ReadOnlySpan<long> Accepted => _accepted;

    /// <summary>How often trees of n nodes were verified, by n (1: no guesses).</summary>
    public ReadOnlySpan<long> TreeSizes => _trees;

    /// <summary>Time of feeding prompts: a mixed step's forward pass counts by its share of the tokens.</summary>
    public TimeSpan PrefillTime { get; internal set; }

    /// <summary>Time of guessing.</summary>
    public TimeSpan DraftTime { get; internal set; }

    /// <summary>Time of the model's forward passes, without prefill.</summary>
    public TimeSpan ForwardTime { get; internal set; }

    /// <summary>Time of choosing and accepting tokens.</summary>
    public TimeSpan SelectTime { get; internal set; }

    /// <summary>Time of committing accepted paths.</summary>
    public TimeSpan CommitTime { get; internal set; }

    /// <summary>Time of all of it.</summary>
    public TimeSpan TotalTime => PrefillTime + DraftTime + ForwardTime + SelectTime + CommitTime;

    /// <summary>Generated tokens per second, prefill left out.</summary>
    public double TokensPerSecond => TotalTime > PrefillTime ? Tokens / (TotalTime - PrefillTime).TotalSeconds : 0;

    /// <summary>Takes in a sequence's step.</summary>
    /// <param name="nodes">Nodes of its tree.</param>
    /// <param name="tried">Depths at which a guess was looked at: the accepted ones and, where the tree goes on, the one where they end.</param>
    /// <param name="tokens">Tokens that became text: the accepted guesses and one more.</param>
    internal void Record(int nodes, int tried, int tokens)
    {
        SequenceSteps++;
        Tokens += tokens;
        if (_trees.Length <= nodes) Array.Resize(ref _trees, nodes + 1);
        _trees[nodes]++;
        if (_tried.Length < tried)
        {
            Array.Resize(ref _tried, tried);
            Array.Resize(ref _accepted, tried);
        }

        for (int depth = 0; depth < tried; depth++) _tried[depth]++;
        for (int depth = 0; depth < tokens - 1; depth++) _accepted[depth]++;
    }
}
