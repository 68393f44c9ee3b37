using Microsoft.Extensions.Logging;

namespace Treeline.Cli;

/// <summary>The library's warnings and errors, one line each on the error stream.</summary>
internal sealed class StderrLogger(Terminal terminal) : ILogger
{
    public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (IsEnabled(logLevel)) terminal.Warn(formatter(state, exception));
    }
}
