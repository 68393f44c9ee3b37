namespace Treeline.Cli.Comparison;

/// <summary>Whether one backend writes the reference's text.</summary>
internal sealed record TextFinding
{
    public required string Backend { get; init; }

    /// <summary>Tokens of both texts.</summary>
    public int Tokens { get; init; }

    /// <summary>The first token that differs, null where none does.</summary>
    public int? PartsAt { get; init; }

    /// <summary>The reference's token there.</summary>
    public int ReferenceToken { get; init; }

    /// <summary>This backend's token there.</summary>
    public int Token { get; init; }

    /// <summary>Between the two best logits there, as the reference sees them.</summary>
    public float ReferenceMargin { get; init; }

    /// <summary>The same as this backend sees them.</summary>
    public float Margin { get; init; }

    /// <summary>Why there is no text to compare, null where there is.</summary>
    public string? Problem { get; init; }

    public int ExitCode { get; init; }

    /// <summary>True where the texts part at a margin that rounding may decide.</summary>
    public bool IsFair => PartsAt is not null && ReferenceMargin < Measure.LeastMargin;

    public static TextFinding Of(ModelRun want, Attempt<ModelRun> other)
    {
        if (other.Error is { } error)
        {
            var finding = Finding.Failed(other.Backend, other.Backend, error);
            return new TextFinding { Backend = other.Backend, Problem = finding.Problem, ExitCode = finding.ExitCode };
        }

        ModelRun got = other.Value!;
        int tokens = Math.Min(want.Text.Length, got.Text.Length), same = want.Text.AsSpan().CommonPrefixLength(got.Text);
        if (same == tokens) return new TextFinding { Backend = other.Backend, Tokens = tokens };
        var parting = new TextFinding
        {
            Backend = other.Backend,
            Tokens = tokens,
            PartsAt = same,
            ReferenceToken = want.Text[same],
            Token = got.Text[same],
            ReferenceMargin = want.Margins[same],
            Margin = got.Margins[same],
        };
        return parting with { ExitCode = parting.IsFair ? ExitCodes.Success : ExitCodes.Mismatch };
    }
}
