namespace Treeline.Tests.Managed.Decoding;

/// <summary>No token three times in a row: right only with the node's own path.</summary>
internal sealed class NoTriples : ILogitsProcessor
{
    public void Process(ReadOnlySpan<int> path, Span<float> logits)
    {
        if (path.Length > 1 && path[^1] == path[^2]) logits[path[^1]] = float.NegativeInfinity;
        logits[path.Length % logits.Length] += 1;
    }
}

/// <summary>Constrained decoding: after token t only the next one, the one after it or twice t may follow (modulo the vocabulary).</summary>
internal sealed class Grammar : ILogitsProcessor
{
    public static bool Allows(int before, int token, int vocabulary) =>
        token == (before + 1) % vocabulary || token == (before + 2) % vocabulary || token == 2 * before % vocabulary;

    public void Process(ReadOnlySpan<int> path, Span<float> logits)
    {
        for (int token = 0; token < logits.Length; token++)
            if (!Allows(path[^1], token, logits.Length)) logits[token] = float.NegativeInfinity;
    }
}

/// <summary>Whatever the test wants.</summary>
internal sealed class Custom(Custom.Edit edit) : ILogitsProcessor
{
    public delegate void Edit(ReadOnlySpan<int> path, Span<float> logits);

    public void Process(ReadOnlySpan<int> path, Span<float> logits) => edit(path, logits);
}

/// <summary>Makes a text say what the test wants: the i-th token after the prompt is the script's i-th; past its end nothing is changed.</summary>
internal sealed class Script(int promptLength, params int[] tokens) : ILogitsProcessor
{
    public void Process(ReadOnlySpan<int> path, Span<float> logits)
    {
        int at = path.Length - promptLength;
        if (at >= tokens.Length) return;
        logits.Fill(float.NegativeInfinity);
        logits[tokens[at]] = 0;
    }
}
