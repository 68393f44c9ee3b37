using System.ComponentModel;
using System.Reflection;
using Spectre.Console.Cli;

namespace Treeline.Cli;

/// <summary>Joins options and their values (<c>--seed -5</c> becomes <c>--seed=-5</c>), so that a value may begin with a dash and a missing one is named.</summary>
internal static class CommandLine
{
    private enum Takes
    {
        Nothing,
        Value,
        Verbatim,
    }

    /// <param name="args">Verb and options as given.</param>
    /// <param name="settings">The verb's options.</param>
    /// <exception cref="ToolException">An option has no value.</exception>
    public static List<string> Join(IReadOnlyList<string> args, Type settings)
    {
        Dictionary<string, Takes> options = ValuesOf(settings);
        List<string> joined = [];
        for (int i = 0; i < args.Count; i++)
        {
            // What follows would be taken by nobody, and silently so.
            if (args[i] == "--") throw ToolException.Usage($"--: expected options and arguments of {args[0]} only, got {string.Join(' ', args.Skip(i))}");
            string name = args[i].Split('=')[0];
            if (!options.TryGetValue(name, out Takes takes) || takes == Takes.Nothing)
            {
                joined.Add(args[i]);
                continue;
            }

            string? value = args[i].Length > name.Length ? args[i][(name.Length + 1)..]
                : i + 1 < args.Count && !options.ContainsKey(args[i + 1]) ? args[++i] : null;
            if (value is null || (value.Length == 0 && takes != Takes.Verbatim)) throw ToolException.Usage($"{name}: expected a value, got none");
            joined.Add(takes == Takes.Verbatim ? $"{name}={VerbatimText.Sign}{value}" : $"{name}={value}");
        }

        return joined;
    }

    /// <summary>The long names of a verb's options.</summary>
    public static IEnumerable<string> OptionsOf(Type settings) => ValuesOf(settings).Keys;

    private static Dictionary<string, Takes> ValuesOf(Type settings)
    {
        Dictionary<string, Takes> options = [];
        foreach (PropertyInfo property in settings.GetProperties())
        {
            if (property.GetCustomAttribute<CommandOptionAttribute>() is not { } option) continue;
            bool isVerbatim = property.GetCustomAttribute<TypeConverterAttribute>()?.ConverterTypeName.StartsWith(typeof(VerbatimText).FullName!, StringComparison.Ordinal) ?? false;
            foreach (string name in option.LongNames)
                options[$"--{name}"] = property.PropertyType == typeof(bool) ? Takes.Nothing : isVerbatim ? Takes.Verbatim : Takes.Value;
        }

        return options;
    }
}
