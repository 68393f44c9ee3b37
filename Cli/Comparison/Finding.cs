namespace Treeline.Cli.Comparison;

/// <summary>How far one backend is from the reference in one thing.</summary>
/// <param name="Backend">Its name.</param>
/// <param name="Error">The error of reals, the number of integers that differ; NaN where a number is none.</param>
/// <param name="IsWithin">True where that is within the tolerance.</param>
/// <param name="Problem">Why there is nothing to compare, null where there is.</param>
/// <param name="ExitCode">What it makes the tool say.</param>
internal sealed record Finding(string Backend, double Error, bool IsWithin, string? Problem, int ExitCode)
{
    public static Finding Of(string backend, double error, double tolerance)
    {
        bool isWithin = error <= tolerance;                 // not where it is NaN
        return new Finding(backend, error, isWithin, null, isWithin ? ExitCodes.Success : ExitCodes.Mismatch);
    }

    /// <param name="backend">Its name.</param>
    /// <param name="failed">The one that failed: it, or the reference.</param>
    /// <param name="exception">What happened.</param>
    public static Finding Failed(string backend, string failed, Exception exception)
    {
        string message = Terminal.OneLine(Program.MessageOf(exception));
        return new Finding(backend, double.NaN, false, failed == backend ? message : $"{failed}: {message}", ExitCodes.Of(exception));
    }
}

/// <summary>One thing that was compared, on all backends but the reference.</summary>
/// <param name="Name">An op's output, a layer, the logits.</param>
/// <param name="Op">The op; for layers and logits the name again.</param>
/// <param name="IsInteger">True where the numbers must be equal.</param>
/// <param name="Tolerance">Largest error; 0 for integers.</param>
/// <param name="Findings">One for each backend but the reference.</param>
internal sealed record Row(string Name, string Op, bool IsInteger, double Tolerance, IReadOnlyList<Finding> Findings);

/// <summary>What was computed on one backend, or why it was not.</summary>
/// <param name="Backend">Its name.</param>
/// <param name="Value">The result, null where there is none.</param>
/// <param name="Error">Why not.</param>
internal sealed record Attempt<T>(string Backend, T? Value, Exception? Error) where T : class
{
    /// <summary>Tries; only a cancellation gets through.</summary>
    public static Attempt<T> Of(string backend, Func<T> compute)
    {
        try
        {
            return new Attempt<T>(backend, compute(), null);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            return new Attempt<T>(backend, null, e);
        }
    }

    /// <summary>A finding about this one as seen from the reference.</summary>
    public Finding Against(Attempt<T> reference, Func<T, T, double> error, double tolerance)
    {
        Attempt<T>? failed = reference.Error is not null ? reference : Error is not null ? this : null;
        return failed is null ? Finding.Of(Backend, error(reference.Value!, Value!), tolerance) : Finding.Failed(Backend, failed.Backend, failed.Error!);
    }
}
