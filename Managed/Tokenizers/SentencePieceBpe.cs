using System.Text;

namespace Treeline;

/// <summary>SentencePiece's BPE: of all neighbours that together are a piece, the pair of the best score becomes one, of equal ones the leftmost; until there is none.</summary>
/// <remarks>
/// Not Microsoft.ML.Tokenizers' (2.0.1), which takes the rightmost of equal pairs: three spaces are then other tokens than those that a model was trained with.
/// Kudo and Richardson 2018, arXiv:1808.06226; <c>bpe_model.cc</c> there.
/// </remarks>
internal sealed class SentencePieceBpe
{
    private readonly record struct Symbol(int Start, int Length, int Previous, int Next);

    private readonly record struct Pair(int Left, int Right, int Length);

    private readonly record struct Urgency(float Score, int Left) : IComparable<Urgency>
    {
        // The queue gives the smallest first.
        public int CompareTo(Urgency other) => other.Score.CompareTo(Score) is not 0 and var order ? order : Left.CompareTo(other.Left);
    }

    private readonly Dictionary<string, int> _ids = [];
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _find;
    private readonly SentencePieceModel _model;

    public SentencePieceBpe(SentencePieceModel model)
    {
        _model = model;
        _find = _ids.GetAlternateLookup<ReadOnlySpan<char>>();
        // Control tokens and bytes are never found in a text.
        for (int i = 0; i < model.Pieces.Count; i++)
            if (model.Pieces[i].Type is PieceType.Normal or PieceType.UserDefined or PieceType.Unused) _ids.Add(model.Pieces[i].Text, i);
    }

    /// <summary>Appends the tokens of a text whose spaces are written as pieces have them.</summary>
    /// <exception cref="ArgumentException">There is neither a piece nor bytes for one of its characters.</exception>
    public void Encode(ReadOnlySpan<char> text, List<int> tokens)
    {
        List<Symbol> symbols = Characters(text);
        var queue = new PriorityQueue<Pair, Urgency>();
        // How unused pieces came about: they are merged on, but not given out.
        Dictionary<(int Start, int Length), int>? parts = null;
        for (int i = 1; i < symbols.Count; i++) Offer(text, i - 1, i);
        while (queue.TryDequeue(out Pair pair, out _))
        {
            (Symbol left, Symbol right) = (symbols[pair.Left], symbols[pair.Right]);
            // Out of date: one of them is part of another piece by now.
            if (left.Length == 0 || right.Length == 0 || left.Length + right.Length != pair.Length) continue;
            symbols[pair.Left] = left with { Length = pair.Length, Next = right.Next };
            symbols[pair.Right] = right with { Length = 0 };
            if (right.Next >= 0) symbols[right.Next] = symbols[right.Next] with { Previous = pair.Left };
            Offer(text, left.Previous, pair.Left);
            Offer(text, pair.Left, right.Next);
        }

        for (int i = symbols.Count > 0 ? 0 : -1; i >= 0; i = symbols[i].Next) Emit(text, symbols[i].Start, symbols[i].Length);

        void Offer(ReadOnlySpan<char> text, int left, int right)
        {
            if (left < 0 || right < 0) return;
            (int start, int length) = (symbols[left].Start, symbols[left].Length + symbols[right].Length);
            if (!_find.TryGetValue(text.Slice(start, length), out int id)) return;
            queue.Enqueue(new Pair(left, right, length), new Urgency(_model.Pieces[id].Score, left));
            if (_model.Pieces[id].Type == PieceType.Unused) (parts ??= [])[(start, length)] = symbols[left].Length;
        }

        void Emit(ReadOnlySpan<char> text, int start, int length)
        {
            if (!_find.TryGetValue(text.Slice(start, length), out int id)) EmitBytes(text.Slice(start, length), tokens);
            else if (_model.Pieces[id].Type == PieceType.Unused && parts is not null && parts.TryGetValue((start, length), out int left))
            {
                Emit(text, start, left);
                Emit(text, start + left, length - left);
            }
            else tokens.Add(id);
        }
    }

    private static List<Symbol> Characters(ReadOnlySpan<char> text)
    {
        var symbols = new List<Symbol>(text.Length);
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int length = rune.Utf16SequenceLength;
            symbols.Add(new Symbol(at, length, symbols.Count - 1, at + length == text.Length ? -1 : symbols.Count + 1));
            at += length;
        }

        return symbols;
    }

    private void EmitBytes(ReadOnlySpan<char> text, List<int> tokens)
    {
        if (!_model.HasByteFallback)
        {
            Rune.DecodeFromUtf16(text, out Rune rune, out _);
            throw new ArgumentException($"text: the vocabulary has no token for {TokenizerText.Shown(rune.Value == SentencePieceModel.Space ? new Rune(' ') : rune)}", nameof(text));
        }

        Span<byte> bytes = stackalloc byte[4];
        foreach (byte value in bytes[..Encoding.UTF8.GetBytes(text, bytes)]) tokens.Add(_model.ByteTokens[value]);
    }
}
