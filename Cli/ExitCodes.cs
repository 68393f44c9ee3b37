using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>What the tool's exit status says: docs/tool.md. Of several cases the highest one is reported.</summary>
public static class ExitCodes
{
    /// <summary>Everything was done, and agreed where something was compared.</summary>
    public const int Success = 0;

    /// <summary>Computed, but past the tolerance, or texts that should be identical are not.</summary>
    public const int Mismatch = 1;

    /// <summary>The command line: an unknown verb or option, a value out of range.</summary>
    public const int Usage = 2;

    /// <summary>An input: a missing or damaged file, a token that does not exist, an empty prompt.</summary>
    public const int Input = 3;

    /// <summary>A sound input that asks for something this build does not compute; the message names it.</summary>
    public const int Unsupported = 4;

    /// <summary>The output cannot be written; found out before anything is computed.</summary>
    public const int Output = 5;

    /// <summary>The backend cannot be opened on this machine.</summary>
    public const int Unavailable = 6;

    /// <summary>Too long for the model or the state, or too large for the memory.</summary>
    public const int Capacity = 7;

    /// <summary>A defect of the tool itself.</summary>
    public const int Internal = 70;

    /// <summary>Cancelled with Ctrl-C (128 + SIGINT, as shells have it).</summary>
    public const int Cancelled = 130;

    /// <summary>One line a code, for the help text.</summary>
    internal static readonly (int Code, string Meaning)[] All =
    [
        (Success, "done; equal within the tolerance where compared"),
        (Mismatch, "past the tolerance, or texts differ that should not"),
        (Usage, "command line: unknown verb or option, value out of range"),
        (Input, "input: missing or damaged file, unknown token, empty prompt"),
        (Unsupported, "an operation, attention or model that this build does not compute"),
        (Output, "output cannot be written (nothing was computed)"),
        (Unavailable, "backend cannot be opened here"),
        (Capacity, "too long for the model, or out of memory"),
        (Internal, "a defect of the tool"),
        (Cancelled, "cancelled"),
    ];

    /// <summary>The code of an exception that ends a command.</summary>
    /// <param name="exception">The exception.</param>
    internal static int Of(Exception exception) => exception switch
    {
        ToolException own => own.ExitCode,
        OperationCanceledException => Cancelled,
        BackendUnavailableException => Unavailable,
        OutOfCapacityException or OutOfDeviceMemoryException or OutOfMemoryException => Capacity,
        NotSupportedException or CheckpointException { IsUnsupported: true } => Unsupported,
        ObjectDisposedException or ArgumentNullException => Internal,
        NotFiniteNumberException => Input,                  // weights or logits that are no numbers
        CheckpointException or IOException or UnauthorizedAccessException or FormatException or System.Text.Json.JsonException or ArgumentException => Input,
        _ => Internal,
    };
}
