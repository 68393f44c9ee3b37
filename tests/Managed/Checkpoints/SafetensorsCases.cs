using System.Text;
using System.Text.RegularExpressions;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed;

/// <summary>Safetensors files by seed: sound ones, and ones with every kind of damage.</summary>
internal static partial class SafetensorsCases
{
    /// <summary>A file, and whether it is sound.</summary>
    public static (byte[] File, bool IsSound) Make(int seed)
    {
        var random = new Random(seed);
        (string header, byte[] data) = Sound(random);
        switch (random.Next(9))
        {
            case 0:
                return (File(header, data), true);
            case 1 or 2:
                return (random.Damage(File(header, data)), false);
            case 3:
                byte[] file = File(header, data);
                BitConverter.GetBytes(random.Chance(0.5) ? random.Number() : (ulong)(header.Length + random.Next(-2, 3))).CopyTo(file, 0);
                return (file, false);
            case 4 or 5:
                return (File(Numbers().Replace(header, match => random.Chance(0.2) ? random.JsonNumber() : match.Value), data), false);
            case 6:
                int at = random.Next(header.Length + 1);
                return (File(header[..at] + Fragment(random) + header[at..], data), false);
            case 7:
                return (File(Encoding.Latin1.GetString(random.Damage(Encoding.UTF8.GetBytes(header))), data, Encoding.Latin1), false);
            default:
                return (File(header, random.Damage(data.Length > 0 ? data : [1])), false);
        }
    }

    private static (string Header, byte[] Data) Sound(Random random)
    {
        var header = new StringBuilder("{");
        if (random.Chance(0.3)) header.Append("\"__metadata__\":{\"format\":\"pt\",\"ä\\n\":\"\\u00e9\"},");
        int at = 0, tensors = random.Next(6);
        for (int i = 0; i < tensors; i++)
        {
            (string type, int size) = random.Pick(("F32", 4), ("BF16", 2), ("F16", 2), ("F64", 8), ("I64", 8), ("I32", 4), ("U8", 1), ("BOOL", 1), ("I8", 1));
            int[] shape = [.. Enumerable.Range(0, random.Next(4)).Select(_ => random.Pick(0, 1, 2, 3, 5))];
            int end = at + size * shape.Aggregate(1, (product, length) => product * length);
            header.Append($"\"layers.{i}.weight\":{{\"dtype\":\"{type}\",\"shape\":[{string.Join(',', shape)}],\"data_offsets\":[{at},{end}]}},");
            at = end;
        }

        string text = header.ToString().TrimEnd(',') + "}" + new string(' ', random.Next(4));
        var data = new byte[at];
        random.NextBytes(data);
        return (text, data);
    }

    private static string Fragment(Random random) => random.Next(9) switch
    {
        0 => new string('[', random.Pick(1, 63, 64, 65, 20_000)),
        1 => string.Concat(Enumerable.Repeat("{\"a\":", random.Pick(1, 63, 64, 65, 5_000))),
        2 => "\"x\":" + new string('[', 40) + new string(']', 40) + ",",
        3 => "\"layers.0.weight\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},",
        4 => "\"\\ud800\":0,",
        5 => random.Pick("{", "}", "[", "]", ",", ":", "\"", "\\", "null", "true", "/*x*/", "\0"),
        6 => new string('9', random.Pick(1, 20, 400)),
        7 => "\"" + new string('n', 5_000) + "\":{},",
        _ => "\"e\":{\"dtype\":\"F32\",\"shape\":[" + string.Join(',', Enumerable.Repeat("0", random.Pick(15, 16, 17, 3000))) + "],\"data_offsets\":[0,0]},",
    };

    private static byte[] File(string header, byte[] data, Encoding? encoding = null)
    {
        byte[] json = (encoding ?? Encoding.UTF8).GetBytes(header);
        return [.. BitConverter.GetBytes((ulong)json.Length), .. json, .. data];
    }

    [GeneratedRegex("[0-9]+")]
    private static partial Regex Numbers();
}
