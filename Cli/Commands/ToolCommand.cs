using System.ComponentModel;
using System.Diagnostics.CodeAnalysis;
using Spectre.Console.Cli;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

/// <summary>A verb: gets its settings and the terminal, returns an exit code, throws what ends it.</summary>
/// <typeparam name="TSettings">Its options.</typeparam>
internal abstract class ToolCommand<TSettings> : Command<TSettings> where TSettings : CommandSettings
{
    protected abstract int Run(TSettings settings, Terminal terminal);

    public sealed override int Execute([NotNull] CommandContext context, [NotNull] TSettings settings, CancellationToken cancellationToken) =>
        Run(settings, (Terminal)context.Data!);
}

/// <summary>Options of every verb whose answer a program may read.</summary>
internal class AnswerSettings : CommandSettings
{
    [CommandOption("--json")]
    [Description("The answer as one JSON object")]
    public bool Json { get; init; }
}

/// <summary>Options of every verb that computes.</summary>
internal class BackendSettings : AnswerSettings
{
    [CommandOption("--backend <NAME>")]
    [Description("Where to compute: cpu, oracle, auto, or another name that `treeline info` lists")]
    [DefaultValue("cpu")]
    public string Backend { get; init; } = "cpu";

    [CommandOption("--threads <N>")]
    [Description("Number of threads; default: one per core")]
    public string? Threads { get; init; }

    [CommandOption("--pin")]
    [Description("Keep each thread on a core of its own")]
    public bool Pin { get; init; }

    /// <summary>Opens the backend.</summary>
    /// <exception cref="BackendUnavailableException">It cannot be opened here.</exception>
    public KernelBackend OpenBackend() => Backends.Open(Backend.Length > 0 ? Backend : throw ToolException.Usage("--backend: expected a name"),
        new BackendOptions { Threads = Parse.Whole("--threads", Threads, 0, 1, 1024), PinThreads = Pin });
}
