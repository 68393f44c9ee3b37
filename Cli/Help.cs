using System.Globalization;
using Spectre.Console;
using Spectre.Console.Cli;
using Spectre.Console.Cli.Help;
using Spectre.Console.Rendering;

namespace Treeline.Cli;

/// <summary>The usual help, and the exit codes below it.</summary>
internal sealed class Help(ICommandAppSettings settings) : HelpProvider(settings)
{
    public override IEnumerable<IRenderable> GetFooter(ICommandModel model, ICommandInfo? command)
    {
        yield return new Text("\nEXIT CODES:\n");
        foreach ((int code, string meaning) in ExitCodes.All)
            yield return new Text(string.Create(CultureInfo.InvariantCulture, $"    {code,3}  {meaning}\n"));
    }
}
