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
internal class ComputeSettings : AnswerSettings
{
    [CommandOption("--threads <N>")]
    [Description("Number of threads; default: one per core")]
    public string? Threads { get; init; }

    [CommandOption("--pin")]
    [Description("Keep each thread on a core of its own")]
    public bool Pin { get; init; }

    /// <summary>How backends are opened.</summary>
    /// <exception cref="ToolException">The number of threads is none.</exception>
    public BackendOptions BackendOptions() => new() { Threads = Parse.Whole("--threads", Threads, 0, 1, 1024), PinThreads = Pin };
}

/// <summary>Options of every verb that computes on one backend.</summary>
internal class BackendSettings : ComputeSettings
{
    [CommandOption("--backend <NAME>")]
    [Description($"Where to compute: cpu, oracle, auto, or another name that `treeline info` lists; default: what the environment variable {Backends.Variable} says, else cpu")]
    public string? Backend { get; init; }

    [CommandOption("--probe")]
    [Description("With --backend auto: decide by a short measurement of every usable backend")]
    public bool Probe { get; init; }

    /// <summary>Opens the backend; says which one where the choice was not the caller's.</summary>
    /// <exception cref="BackendUnavailableException">It cannot be opened here.</exception>
    public KernelBackend OpenBackend(Terminal terminal)
    {
        BackendOptions options = BackendOptions();
        string name = Backend ?? Backends.DefaultName;
        if (name == "auto") return Backends.Open(BackendChoice.Auto(Probe, options, terminal), options);
        if (Probe) throw ToolException.Usage($"--probe: expected --backend auto, got {name}");
        return Backends.Open(Backend, options);
    }
}
