using System.Text;

namespace Treeline;

/// <summary>GPT-2's way to write bytes as printable characters: Latin-1's printable ones stand for themselves, the others for U+0100 onwards.</summary>
internal static class ByteAlphabet
{
    private static readonly char[] Characters = Build();
    private static readonly Dictionary<char, byte> Back = Enumerable.Range(0, 256).ToDictionary(value => Characters[value], value => (byte)value);

    public static char Character(byte value) => Characters[value];

    /// <summary>A text's bytes, written so.</summary>
    public static string Write(ReadOnlySpan<char> text)
    {
        byte[] bytes = new byte[Encoding.UTF8.GetByteCount(text)];
        Encoding.UTF8.GetBytes(text, bytes);
        return string.Create(bytes.Length, bytes, (to, from) =>
        {
            for (int i = 0; i < to.Length; i++) to[i] = Characters[from[i]];
        });
    }

    /// <summary>The bytes that a token's name stands for; a name with other characters stands for itself, as in Hugging Face's decoder.</summary>
    public static byte[] Read(string name)
    {
        byte[] bytes = new byte[name.Length];
        for (int i = 0; i < name.Length; i++)
            if (!Back.TryGetValue(name[i], out bytes[i])) return Encoding.UTF8.GetBytes(name);
        return bytes;
    }

    private static char[] Build()
    {
        var characters = new char[256];
        int others = 0x100;
        for (int value = 0; value < 256; value++)
            characters[value] = value is (>= '!' and <= '~') or (>= 0xa1 and <= 0xac) or (>= 0xae and <= 0xff) ? (char)value : (char)others++;
        return characters;
    }
}
