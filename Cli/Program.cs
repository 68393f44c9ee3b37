using System.Reflection;
using System.Text.RegularExpressions;
using Spectre.Console;
using Spectre.Console.Cli;
using Treeline.Cli.Commands;

namespace Treeline.Cli;

/// <summary>The <c>treeline</c> tool.</summary>
public static partial class Program
{
    /// <summary>The tool's version, the library's own.</summary>
    public static string Version { get; } = typeof(Program).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];

    /// <summary>Runs the tool on the console; Ctrl-C cancels.</summary>
    /// <param name="args">Verb and options.</param>
    public static int Main(string[] args)
    {
        using var cancellation = new CancellationTokenSource();
        Console.CancelKeyPress += (_, pressed) =>
        {
            pressed.Cancel = !cancellation.IsCancellationRequested;         // a second Ctrl-C ends the process at once
            cancellation.Cancel();
        };
        using StreamReader input = TextSource.Reader(Console.OpenStandardInput());      // UTF-8, whatever the terminal's own encoding
        return Run(args, input, new StreamWriter(new AnswerStream(Console.OpenStandardOutput())), Console.Error, !Console.IsErrorRedirected, cancellation.Token);
    }

    /// <summary>Runs the tool in this process.</summary>
    /// <param name="args">Verb and options.</param>
    /// <param name="input">Standard input.</param>
    /// <param name="output">Receives answers only.</param>
    /// <param name="error">Receives progress, warnings and errors.</param>
    /// <param name="showsProgress">True where somebody watches <paramref name="error"/>.</param>
    /// <param name="cancellation">Ends the command between steps.</param>
    /// <returns>One of <see cref="ExitCodes"/>.</returns>
    public static int Run(IReadOnlyList<string> args, TextReader input, TextWriter output, TextWriter error, bool showsProgress = false, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(args);
        ArgumentNullException.ThrowIfNull(error);
        var terminal = new Terminal(input, output, error, showsProgress, cancellation);
        try
        {
            if (args.Count == 0) throw ToolException.Usage("expected a verb; `treeline --help` lists them");
            Verb? verb = Array.Find(Verbs, known => known.Name == args[0]);
            int code = App(terminal).Run(verb is null ? args : CommandLine.Join(args, verb.Settings), CancellationToken.None);
            output.Flush();
            return code;
        }
        catch (CommandAppException e)
        {
            terminal.Fail($"{e.Message.TrimEnd('.')}; see `treeline{(Array.Exists(Verbs, known => known.Name == args[0]) ? $" {args[0]}" : "")} --help`");
            return ExitCodes.Usage;
        }
        catch (Exception e)
        {
            terminal.Fail(MessageOf(e));
            return ExitCodes.Of(e);
        }
    }

    /// <summary>One line that says what ended a command.</summary>
    internal static string MessageOf(Exception exception) => ExitCodes.Of(exception) switch
    {
        ExitCodes.Cancelled => "cancelled",
        ExitCodes.Internal => $"internal error: {exception.GetType().Name}: {exception.Message}",
        _ => ParameterOfCode().Replace(exception.Message, ""),
    };

    // What .NET appends to an argument's message: our messages begin with what the user knows it by.
    [GeneratedRegex(@" \(Parameter '\w+'\)")]
    private static partial Regex ParameterOfCode();

    /// <summary>All verbs.</summary>
    internal static IEnumerable<string> VerbNames => Verbs.Select(verb => verb.Name);

    /// <summary>The options of a verb, by their long names.</summary>
    internal static IEnumerable<string> OptionsOf(string verb) => CommandLine.OptionsOf(Array.Find(Verbs, known => known.Name == verb)!.Settings);

    private sealed record Verb(string Name, Type Settings, Action<IConfigurator, Terminal> Add)
    {
        public static Verb Of<TCommand, TSettings>(string name, string description) where TCommand : ToolCommand<TSettings> where TSettings : CommandSettings =>
            new(name, typeof(TSettings), (config, terminal) => config.AddCommand<TCommand>(name).WithData(terminal).WithDescription(description));
    }

    private static readonly Verb[] Verbs =
    [
        Verb.Of<GenerateCommand, GenerateSettings>("generate", "Continue a text, streamed as it comes"),
        Verb.Of<PerplexityCommand, PerplexitySettings>("perplexity", "How well a model predicts a text"),
        Verb.Of<LogitsCommand, LogitsSettings>("logits", "A model's logits after each of some tokens, as a safetensors file"),
        Verb.Of<TokenizeCommand, TokenizeSettings>("tokenize", "Text to token ids and back"),
        Verb.Of<InspectCommand, InspectSettings>("inspect", "What a checkpoint holds: configuration, tensors, attention, size of the state"),
        Verb.Of<RunCommand, RunSettings>("run", "Compute recorded cases and compare with what was recorded"),
        Verb.Of<CompareCommand, CompareSettings>("compare", "The same computations on several backends, and where they part"),
        Verb.Of<InfoCommand, AnswerSettings>("info", "Backends, devices, vector width, threads, what each supports"),
    ];

    private static CommandApp App(Terminal terminal)
    {
        var app = new CommandApp();
        app.Configure(config =>
        {
            config.SetApplicationName("treeline");
            config.SetApplicationVersion(Version);
            config.SetHelpProvider(new Help(config.Settings));
            config.PropagateExceptions();
            config.UseStrictParsing();                      // an unknown option is an error, not an argument to pass on
            config.ConfigureConsole(AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(terminal.Out), Ansi = AnsiSupport.No }));
            foreach (Verb verb in Verbs) verb.Add(config, terminal);
        });
        return app;
    }
}
