using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>One computed tensor, and how far it is from the expected one where the case has that.</summary>
/// <remarks>Error: <c>max|got - want| / max(1, max|want|)</c>; integers must be equal, their error is the number of elements that differ.</remarks>
internal sealed class CaseOutput
{
    /// <param name="got">What was computed.</param>
    /// <param name="want">What was recorded, null where the case comes without.</param>
    /// <param name="tolerance">Largest error of real numbers.</param>
    /// <param name="compared">Only the first elements are compared: greedy text up to a margin that rounding may decide. Null: all.</param>
    public CaseOutput(CaseTensor got, CheckpointTensor? want, double tolerance, int? compared = null)
    {
        Got = got;
        Compared = compared;
        Tolerance = got.Type.IsFloat() ? tolerance : 0;
        if (want is null) return;
        HasExpected = true;
        if (!want.Shape.SequenceEqual(got.Shape))
            Problem = $"expected shape [{string.Join(", ", want.Shape.ToArray())}], got [{string.Join(", ", got.Shape)}]";
        else if (got.Type.IsFloat() != want.ElementType.IsFloat())
            Problem = $"expected {want.StoredType}, got {got.Type}";
        else
            Error = got.Type.IsFloat() ? Measure.RelativeError(want.ToFloat32(), got.Floats()) : Measure.Differences(want.ToInt32().AsSpan(..(compared ?? got.Integers().Length)), got.Integers());
    }

    public CaseTensor Got { get; }

    public bool HasExpected { get; }

    public double? Error { get; }

    public double Tolerance { get; }

    public int? Compared { get; }

    /// <summary>Why the two cannot be compared, null where they can.</summary>
    public string? Problem { get; }

    /// <summary>False only where it was compared and is too far; a NaN is too far.</summary>
    public bool IsWithin => !HasExpected || (Problem is null && Error <= Tolerance);
}
