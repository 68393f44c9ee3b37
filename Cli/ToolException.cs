namespace Treeline.Cli;

/// <summary>Ends a command with one line on the error stream and an exit code.</summary>
internal sealed class ToolException : Exception
{
    public ToolException(int exitCode, string message, Exception? innerException = null) : base(message, innerException) => ExitCode = exitCode;

    public int ExitCode { get; }

    public static ToolException Usage(string message) => new(ExitCodes.Usage, message);

    public static ToolException Input(string message, Exception? innerException = null) => new(ExitCodes.Input, message, innerException);

    public static ToolException Unsupported(string message) => new(ExitCodes.Unsupported, message);
}
