using System.Text;

namespace Treeline.Cli;

/// <summary>Where a command reads and writes: answers go to <see cref="Out"/>, everything else to <see cref="Error"/>.</summary>
/// <param name="In">Standard input.</param>
/// <param name="Out">Answers only.</param>
/// <param name="Error">Progress, warnings, errors.</param>
/// <param name="ShowsProgress">True where somebody watches the error stream.</param>
/// <param name="Cancellation">Signalled by Ctrl-C.</param>
internal sealed record Terminal(TextReader In, TextWriter Out, TextWriter Error, bool ShowsProgress, CancellationToken Cancellation)
{
    /// <summary>Something worth knowing that is no part of the answer.</summary>
    public void Say(string message) => Error.WriteLine($"treeline: {OneLine(message)}");

    public void Warn(string message) => Error.WriteLine($"treeline: warning: {OneLine(message)}");

    public void Fail(string message) => Error.WriteLine($"treeline: {OneLine(message)}");

    /// <summary>All of standard input; Ctrl-C ends the waiting too.</summary>
    /// <exception cref="ToolException">It is not UTF-8.</exception>
    public string ReadInput()
    {
        try
        {
            return Task.Run(In.ReadToEnd, Cancellation).WaitAsync(Cancellation).GetAwaiter().GetResult();
        }
        catch (DecoderFallbackException e)
        {
            throw ToolException.Input("standard input: expected a text in UTF-8, got a byte that is none", e);
        }
    }

    /// <summary>A line that is rewritten while long work goes on; silent where nobody watches.</summary>
    /// <param name="what">What is being done.</param>
    public Progress Progress(string what) => new(ShowsProgress ? Error : null, what);

    public static string OneLine(string message) => string.Join(' ', message.Split(['\r', '\n'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
}

/// <summary>One line on the error stream, rewritten a few times a second and wiped at the end.</summary>
internal sealed class Progress(TextWriter? writer, string what) : IDisposable
{
    private const long Interval = 200;                      // milliseconds
    private long _last;
    private int _width;

    public void Report(long done, long total)
    {
        long now = Environment.TickCount64;
        if (writer is null || now - _last < Interval) return;
        _last = now;
        string text = $"{what}: {done} of {total}";
        writer.Write($"\r{text.PadRight(_width)}");
        writer.Flush();
        _width = text.Length;
    }

    /// <summary>The same for what knows only how much is done.</summary>
    public IProgress<int> Of(long total) => new Part(this, total);

    public void Dispose()
    {
        if (writer is null || _width == 0) return;
        writer.Write($"\r{new string(' ', _width)}\r");
        writer.Flush();
        _width = 0;
    }

    private sealed class Part(Progress whole, long total) : IProgress<int>
    {
        public void Report(int value) => whole.Report(value, total);
    }
}
