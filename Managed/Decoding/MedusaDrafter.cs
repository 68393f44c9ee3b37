using Treeline.Kernels;

namespace Treeline;

/// <summary>The checkpoint's Medusa heads: head h guesses the token h + 1 places after a sequence's last one, from the hidden state that gave that last one. Cai et al. 2024.</summary>
internal sealed class MedusaDrafter : IDrafter, IDisposable
{
    private const int Candidates = 10;                      // as published: the trees' ranks end there

    private readonly KernelBackend _backend;
    private readonly MedusaHeads _heads;
    private readonly DeviceTensor _slots;                   // which sequences' hidden states are read
    private readonly DeviceTensor _hidden;
    private readonly DeviceTensor _values;
    private readonly DeviceTensor _indices;
    private readonly DeviceTensor _kept;
    private readonly int[] _slotOfRow;
    private readonly int[] _rowOfSlot;
    private readonly int[] _guesses;

    /// <summary>Creates the drafter.</summary>
    /// <param name="model">A model with heads.</param>
    /// <param name="kept">Each slot's last hidden state, <c>[slots, hidden]</c>.</param>
    public MedusaDrafter(CausalModel model, DeviceTensor kept)
    {
        _backend = model.Backend;
        _heads = model.Medusa!;
        _kept = kept;
        Levels = _heads.Count;
        Ranks = Math.Min(Candidates, model.VocabularySize);
        int slots = kept.Rows;
        _slots = _backend.Allocate(ElementType.Int32, slots);
        _hidden = _backend.Allocate(ElementType.Float32, slots, kept.RowLength);
        _values = _backend.Allocate(ElementType.Float32, slots * Levels, Ranks);
        _indices = _backend.Allocate(ElementType.Int32, slots * Levels, Ranks);
        _slotOfRow = new int[slots];
        _rowOfSlot = new int[slots];
        _guesses = new int[slots * Levels * Ranks];
    }

    public int Levels { get; }

    public int Ranks { get; }

    public void Prepare(ReadOnlySpan<Sequence> sequences)
    {
        int n = sequences.Length;
        for (int i = 0; i < n; i++)
        {
            _slotOfRow[i] = sequences[i].Slot;
            _rowOfSlot[sequences[i].Slot] = i;
        }

        _backend.Write<int>(_slots.First(n), _slotOfRow.AsSpan(0, n));
        _backend.Embedding(_kept, _slots.First(n), _hidden.First(n));
        DeviceTensor logits = _heads.Forward(_hidden.First(n));
        int rows = n * Levels;
        _backend.TopK(logits, _values.First(rows), _indices.First(rows));
        _backend.Read(_indices.First(rows), _guesses.AsSpan(0, rows * Ranks));
    }

    public void Draft(Sequence sequence, Span<int> guesses) =>
        _guesses.AsSpan(_rowOfSlot[sequence.Slot] * Levels * Ranks, Levels * Ranks).CopyTo(guesses);

    public void Dispose()
    {
        _slots.Dispose();
        _hidden.Dispose();
        _values.Dispose();
        _indices.Dispose();
    }
}
