using System.Buffers.Binary;
using System.Diagnostics;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed;

/// <summary>Runs many seeded cases; whatever goes wrong names the seed that shows it again.</summary>
internal static class Fuzzing
{
    // Not a measure of speed: a case takes far less than a millisecond, and one that hangs would hang for ever.
    private static readonly TimeSpan Hanging = TimeSpan.FromMinutes(2);

    private static readonly ulong[] Interesting =
        [0, 1, 2, 7, 8, 16, 255, 256, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, long.MaxValue, 1UL << 63, ulong.MaxValue, ulong.MaxValue - 7];

    /// <summary>Numbers as JSON writes them: every limit that a reader may trip over, and some that are none.</summary>
    private static readonly string[] InterestingNumbers =
        ["-1", "0", "1", "3", "8", "16", "-0", "0.5", "1e2", "1e999", "-1e999", "2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615", "99999999999999999999999", "00", "1.", "NaN"];

    /// <summary>Runs the cases on a thread of their own, so that one that hangs is named too.</summary>
    public static void Run(int first, int count, Action<int> one)
    {
        int current = first;
        long since = Stopwatch.GetTimestamp();
        string? failure = null;
        var worker = new Thread(() =>
        {
            for (int seed = first; seed < first + count && failure is null; seed++)
            {
                Volatile.Write(ref current, seed);
                Volatile.Write(ref since, Stopwatch.GetTimestamp());
                try
                {
                    one(seed);
                }
                catch (Exception e)
                {
                    failure = $"seed {seed}: {e}";
                }
            }
        })
        { IsBackground = true };
        worker.Start();
        while (!worker.Join(TimeSpan.FromSeconds(1)))
            if (Stopwatch.GetElapsedTime(Volatile.Read(ref since)) > Hanging) Assert.Fail($"seed {Volatile.Read(ref current)}: does not come to an end");
        Assert.True(failure is null, failure);
    }

    /// <summary>Damages a file in one to four places.</summary>
    public static byte[] Damage(this Random random, byte[] file)
    {
        for (int times = random.Next(1, 5); times > 0; times--) file = DamageOnce(random, file);
        return file;
    }

    /// <summary>A number that readers trip over, as JSON writes it.</summary>
    public static string JsonNumber(this Random random) => random.Pick<string>(InterestingNumbers);

    /// <summary>A number that readers trip over.</summary>
    public static ulong Number(this Random random) => random.Chance(0.3) ? (ulong)random.Next(1000) : random.Pick<ulong>(Interesting) + (ulong)random.Next(-1, 2);

    private static byte[] DamageOnce(Random random, byte[] file)
    {
        if (file.Length == 0) return random.Chance(0.5) ? file : [(byte)random.Next(256)];
        byte[] damaged = [.. file];
        int at = random.Next(file.Length);
        int length = Math.Min(random.Pick(1, 2, 8, 40, 400), file.Length - at);
        switch (random.Next(8))
        {
            case 0:
                damaged[at] ^= (byte)(1 << random.Next(8));
                return damaged;
            case 1:
                damaged[at] = random.Pick<byte>(0, 1, 0x7f, 0x80, 0xff, (byte)random.Next(256));
                return damaged;
            case 2:
                return damaged[..at];
            case 3:
                return [.. damaged, .. new byte[random.Pick(1, 8, 100, 5000)]];
            case 4:
                return [.. damaged[..at], .. damaged[(at + length)..]];
            case 5:
                return [.. damaged[..(at + length)], .. damaged[at..]];
            case 6:
                random.NextBytes(damaged.AsSpan(at, length));
                return damaged;
            default:
                Span<byte> number = stackalloc byte[8];
                BinaryPrimitives.WriteUInt64LittleEndian(number, random.Number());
                number[..Math.Min(random.Pick(2, 4, 8), file.Length - at)].CopyTo(damaged.AsSpan(at));
                return damaged;
        }
    }
}
