using System.ComponentModel;
using System.Globalization;

namespace Treeline.Cli;

/// <summary>Marks an option whose value is text as it is, empty text included: <see cref="CommandLine.Join"/> puts a sign before it, which keeps empty apart from missing.</summary>
internal sealed class VerbatimText : TypeConverter
{
    public const string Sign = "=";

    public override bool CanConvertFrom(ITypeDescriptorContext? context, Type sourceType) => sourceType == typeof(string);

    public override object ConvertFrom(ITypeDescriptorContext? context, CultureInfo? culture, object value) => ((string)value)[Sign.Length..];
}
