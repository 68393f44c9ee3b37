using System.Text;

namespace Treeline;

/// <summary>Text to token ids and back.</summary>
public abstract class TextTokenizer
{
    /// <summary>One more than the largest token id that it knows.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>Token ids of a text, without added special tokens unless the checkpoint's tokenizer asks for them (LLaMA's leading BOS). Special tokens that are written out in the text are recognised.</summary>
    /// <param name="text">The text; half a surrogate pair counts as U+FFFD.</param>
    /// <exception cref="ArgumentException">The vocabulary has no token for one of its characters; the message says which.</exception>
    public abstract int[] Encode(string text);

    /// <summary>Bytes (UTF-8) that a token stands for; not always whole characters, and none for the tokens that frame a text (BOS, EOS where <see cref="Encode"/> adds it).</summary>
    /// <param name="token">The token.</param>
    /// <exception cref="ArgumentException">The token is not in the vocabulary.</exception>
    public abstract ReadOnlyMemory<byte> Bytes(int token);

    /// <summary>Bytes of a token that begins a text: SentencePiece's first space, which stands for no character there, is left out.</summary>
    /// <param name="token">The token.</param>
    /// <exception cref="ArgumentException">The token is not in the vocabulary.</exception>
    public virtual ReadOnlyMemory<byte> FirstBytes(int token) => Bytes(token);

    /// <summary>Text of some tokens; bytes that are no UTF-8 become U+FFFD.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <exception cref="ArgumentException">A token is not in the vocabulary.</exception>
    public string Decode(ReadOnlySpan<int> tokens)
    {
        var text = new StringBuilder();
        var stream = new StreamingDetokenizer(this);
        foreach (int token in tokens) text.Append(stream.Next(token));
        return text.Append(stream.End()).ToString();
    }

    /// <summary>The tokenizer of a checkpoint's folder: SentencePiece's <c>tokenizer.model</c>, else <c>tokenizer.json</c>, else <c>vocab.json</c> and <c>merges.txt</c>.</summary>
    /// <remarks>What is read: byte-level BPE (GPT-2, LLaMA 3), and SentencePiece's BPE (LLaMA 1 and 2). Anything else is refused by name, not computed nearly.</remarks>
    /// <param name="folder">The folder.</param>
    /// <returns>The tokenizer; null where the folder has none of these files.</returns>
    /// <exception cref="CheckpointException">A file is damaged, missing beside another, or of a kind that is not supported.</exception>
    public static TextTokenizer? Load(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        if (!Directory.Exists(folder)) throw new CheckpointException(folder, null, "folder not found");
        if (File.Exists(Path.Combine(folder, SentencePieceTokenizer.FileName))) return SentencePieceTokenizer.Read(folder);
        if (File.Exists(Path.Combine(folder, TokenizerJson.FileName))) return new ByteLevelTokenizer(TokenizerJson.Read(folder));
        return File.Exists(Path.Combine(folder, VocabularyFiles.Vocabulary)) ? new ByteLevelTokenizer(VocabularyFiles.Read(folder)) : null;
    }
}
