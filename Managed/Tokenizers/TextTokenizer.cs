namespace Treeline;

/// <summary>Text to token ids and back.</summary>
public abstract class TextTokenizer
{
    /// <summary>Number of tokens it knows.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>Token ids of a text, without added special tokens unless the checkpoint's tokenizer asks for them (LLaMA's leading BOS).</summary>
    /// <param name="text">The text.</param>
    public abstract int[] Encode(string text);

    /// <summary>Bytes (UTF-8) that a token stands for; not always whole characters.</summary>
    /// <param name="token">The token.</param>
    /// <exception cref="ArgumentException">The token is not in the vocabulary.</exception>
    public abstract ReadOnlyMemory<byte> Bytes(int token);

    /// <summary>Text of some tokens; bytes that are no UTF-8 become U+FFFD.</summary>
    /// <param name="tokens">The tokens.</param>
    public abstract string Decode(ReadOnlySpan<int> tokens);
}
