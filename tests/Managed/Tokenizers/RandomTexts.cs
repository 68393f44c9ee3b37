using System.Text;

namespace Treeline.Tests.Managed;

/// <summary>Texts of all scripts and lengths of UTF-8, spaces and controls among them.</summary>
internal static class RandomTexts
{
    public static string Next(Random random, int characters)
    {
        var text = new StringBuilder();
        for (int i = 0; i < characters; i++)
        {
            int value = random.Next(8) switch
            {
                0 => ' ',
                1 => random.Next(0x20),
                2 or 3 => random.Next(0x20, 0x7f),
                4 => random.Next(0x80, 0x800),
                5 => random.Next(0x800, 0xd800),
                6 => random.Next(0xe000, 0x10000),
                _ => random.Next(0x10000, 0x110000),
            };
            // SentencePiece's own sign for a space comes back as one.
            text.Append(value == 0x2581 ? "_" : new Rune(value).ToString());
        }

        return text.ToString();
    }
}
