namespace Treeline.Kernels.ILGPU;

/// <summary>What is known, without looking, of the integers in one part of a buffer: ids that the host wrote, or that an op chose, need not come back to be checked.</summary>
/// <param name="First">Where the part begins, in integers.</param>
/// <param name="Count">How many it has; 0: nothing is known.</param>
/// <param name="Smallest">None is smaller.</param>
/// <param name="Largest">None is larger.</param>
internal readonly record struct IntegerBounds(long First, long Count, int Smallest, int Largest)
{
    /// <summary>The bounds of host numbers that lie at a place.</summary>
    public static IntegerBounds Of(long first, ReadOnlySpan<int> numbers)
    {
        (int smallest, int largest) = (int.MaxValue, int.MinValue);
        foreach (int number in numbers) (smallest, largest) = (Math.Min(smallest, number), Math.Max(largest, number));
        return new IntegerBounds(first, numbers.Length, smallest, largest);
    }

    /// <summary>True where all of a part are known to be indices below a count.</summary>
    public bool AreIndices(long first, long count, int below) => Covers(first, count) && Smallest >= 0 && Largest < below;

    /// <summary>What is known after a part was overwritten: of the part alone where all of it is new, so that bounds fall again where numbers do; what lies around it is forgotten.</summary>
    /// <param name="part">The part and its new numbers' bounds.</param>
    /// <param name="whole">True where every number from its first to its last one is new; false: those between are as they were.</param>
    public IntegerBounds Overwritten(IntegerBounds part, bool whole)
    {
        if (whole) return part;
        return Covers(part.First, part.Count) ? this with { Smallest = Math.Min(Smallest, part.Smallest), Largest = Math.Max(Largest, part.Largest) } : default;
    }

    private bool Covers(long first, long count) => Count > 0 && first >= First && first + count <= First + Count;
}
