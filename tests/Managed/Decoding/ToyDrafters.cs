using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Some guesses, now and then few or none.</summary>
internal sealed class Noise(int seed, int levels, int ranks, int vocabulary) : IDrafter
{
    private readonly Random _random = new(seed);

    public int Levels => levels;

    public int Ranks => ranks;

    public void Draft(Sequence sequence, Span<int> guesses)
    {
        int filled = _random.Next(0, levels + 1) * ranks;
        guesses.Fill(-1);
        for (int i = 0; i < filled; i++) guesses[i] = i % ranks == 0 || _random.Chance(0.8) ? _random.Next(vocabulary) : -1;
    }
}

/// <summary>Knows the text; its other guesses are wrong.</summary>
internal sealed class Oracular(int[] text, int levels, int ranks, int rightRank, int vocabulary) : IDrafter
{
    public int Levels => levels;

    public int Ranks => ranks;

    public void Draft(Sequence sequence, Span<int> guesses)
    {
        for (int level = 0; level < levels; level++)
        {
            int right = sequence.Count + level < text.Length ? text[sequence.Count + level] : 0;
            for (int rank = 0; rank < ranks; rank++) guesses[level * ranks + rank] = rank == rightRank ? right : (right + 1 + rank) % vocabulary;
        }
    }
}

/// <summary>The same guesses each time.</summary>
internal sealed class Fixed(int[] table, int levels, int ranks) : IDrafter
{
    public int Levels => levels;

    public int Ranks => ranks;

    public void Draft(Sequence sequence, Span<int> guesses) => table.CopyTo(guesses);
}

/// <summary>Does something of the test's in the middle of a step, then guesses nothing.</summary>
internal sealed class Meddler(Action<Sequence> meddle) : IDrafter
{
    public int Levels => 1;

    public int Ranks => 1;

    public void Draft(Sequence sequence, Span<int> guesses)
    {
        guesses.Fill(-1);
        meddle(sequence);
    }
}
