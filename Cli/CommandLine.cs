using System.Reflection;
using Spectre.Console.Cli;

namespace Treeline.Cli;

/// <summary>Joins options and their values (<c>--seed -5</c> becomes <c>--seed=-5</c>), so that a value may begin with a dash and a missing one is named.</summary>
internal static class CommandLine
{
    /// <param name="args">Verb and options as given.</param>
    /// <param name="settings">The verb's options.</param>
    /// <exception cref="ToolException">An option has no value.</exception>
    public static List<string> Join(IReadOnlyList<string> args, Type settings)
    {
        Dictionary<string, bool> takesValue = OptionsOf(settings);
        List<string> joined = [];
        for (int i = 0; i < args.Count; i++)
        {
            string name = args[i].Split('=')[0];
            if (!takesValue.TryGetValue(name, out bool wantsValue) || !wantsValue)
            {
                joined.Add(args[i]);
                continue;
            }

            string? value = args[i].Length > name.Length ? args[i][(name.Length + 1)..]
                : i + 1 < args.Count && !takesValue.ContainsKey(args[i + 1]) ? args[++i] : null;
            if (string.IsNullOrEmpty(value)) throw ToolException.Usage($"{name}: expected a value, got none");
            joined.Add($"{name}={value}");
        }

        return joined;
    }

    private static Dictionary<string, bool> OptionsOf(Type settings)
    {
        Dictionary<string, bool> options = [];
        foreach (PropertyInfo property in settings.GetProperties())
        {
            if (property.GetCustomAttribute<CommandOptionAttribute>() is not { } option) continue;
            foreach (string name in option.LongNames) options[$"--{name}"] = property.PropertyType != typeof(bool);
        }

        return options;
    }
}
