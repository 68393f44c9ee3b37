using System.Buffers.Binary;
using System.IO.Compression;
using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed;

/// <summary>PyTorch files by seed: sound ones, and ones with every kind of damage in the zip file, in the pickle, and in both.</summary>
internal static class TorchCases
{
    // Every instruction that pickles have, those that must be refused among them.
    private const string Instructions = "(.012FIJKLMNPQRSTUVXabcdghijloprstu})]eGBC\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098";

    /// <summary>A file, whether it is sound, and whether something in it is packed.</summary>
    public static (byte[] File, bool IsSound, bool IsPacked) Make(int seed)
    {
        var random = new Random(seed);
        bool packed = random.Chance(0.2);
        TorchFile torch = Sound(random, packed);
        switch (random.Next(10))
        {
            case 0:
                return (torch.ToBytes(), true, packed);
            case 1:
                return (random.Damage(torch.ToBytes()), false, packed);
            case 2:
                return (torch.ToBytes(random.Damage(torch.Pickle())), false, packed);
            case 3:
                return (torch.ToBytes(Rewritten(random, torch.Pickle())), false, packed);
            case 4:
                return (torch.ToBytes(Nonsense(random)), false, packed);
            case 5 or 6:
                return (WithFields(random, torch.ToBytes()), false, packed);
            case 7:
                torch.Extra.Add((random.Pick("data.pkl", "data/0", "x/data.pkl", "byteorder", "version", "data/", "../../x", new string('n', 60_000)), new byte[random.Next(20)]));
                return (torch.ToBytes(), false, packed);
            case 8:
                return (torch.ToBytes(Lying(random)), false, packed);
            default:
                return random.Chance(0.02) ? (Bomb(random, torch), false, true) : (With64(random, torch.ToBytes()), false, packed);
        }
    }

    private static TorchFile Sound(Random random, bool packed)
    {
        var torch = new TorchFile { Compression = packed ? CompressionLevel.Fastest : CompressionLevel.NoCompression, IsTraining = random.Chance(0.2), ByteOrder = random.Chance(0.5) ? "little" : null, Prefix = random.Pick("archive/", "", "a/b/") };
        int storages = random.Next(1, 4);
        for (int s = 0; s < storages; s++)
        {
            (string type, int size) = random.Pick(("FloatStorage", 4), ("BFloat16Storage", 2), ("HalfStorage", 2), ("LongStorage", 8), ("ByteStorage", 1), ("BoolStorage", 1));
            int count = random.Next(1, 30);
            var bytes = new byte[count * size];
            random.NextBytes(bytes);
            torch.Storage($"{s}", bytes);
            for (int t = random.Next(3); t > 0; t--)
            {
                int rows = random.Next(1, count + 1), columns = count / rows;
                (long[] shape, long[] strides) = random.Pick<(long[], long[])>(([rows], [1]), ([rows, columns], [columns, 1]), ([columns, rows], [1, columns]), ([], []), ([3, rows], [0, 1]));
                torch.Tensor($"t{s}.{t}", type, $"{s}", size, 0, shape, strides, random.Chance(0.2));
            }
        }

        return torch;
    }

    // Instructions put in, taken out, exchanged.
    private static byte[] Rewritten(Random random, byte[] pickle)
    {
        List<byte> bytes = [.. pickle];
        for (int times = random.Next(1, 6); times > 0; times--)
        {
            int at = random.Next(2, bytes.Count);
            byte code = (byte)random.Pick<char>(Instructions);
            if (random.Chance(0.5)) bytes[at] = code;
            else bytes.Insert(at, code);
        }

        return [.. bytes];
    }

    private static byte[] Nonsense(Random random)
    {
        var pickle = new PickleWriter();
        for (int count = random.Next(1, 200); count > 0; count--)
        {
            switch (random.Next(10))
            {
                case 0: pickle.Number((long)random.Number()); break;
                case 1: pickle.Text(random.Pick("storage", "a", "0", "cpu", "\u00e9")); break;
                case 2: pickle.Global(random.Pick("torch", "collections", "torch._utils", "os"), random.Pick("FloatStorage", "OrderedDict", "Size", "_rebuild_tensor_v2", "_rebuild_parameter", "system")); break;
                case 3: pickle.Raw((byte)random.Pick('q', 'h'), (byte)random.Next(4)); break;
                case 4: pickle.Raw((byte)random.Pick('r', 'j')).Raw(BitConverter.GetBytes((uint)random.Number())); break;
                case 5: pickle.OrderedDictionary(); break;
                default: pickle.Raw((byte)random.Pick<char>("(}])Nt\u0085\u0086\u0087aesu2Rb01Q\u0094\u0088\u0089")); break;
            }
        }

        return pickle.ToBytes();
    }

    // A well-formed pickle whose tensors lie.
    private static byte[] Lying(Random random)
    {
        var pickle = new PickleWriter().OrderedDictionary().Code('(');
        for (int i = 0; i < 3; i++)
        {
            long Number() => random.Chance(0.5) ? random.Next(4) : (long)random.Number();
            long[] shape = [.. Enumerable.Range(0, random.Pick(0, 1, 2, 3, 16, 17)).Select(_ => Number())];
            long[] strides = [.. shape.Select(_ => Number()).Take(random.Chance(0.9) ? 100 : 1)];
            pickle.Text($"t{i}").Tensor(random.Pick("FloatStorage", "LongStorage", "ByteStorage", "NoStorage"), random.Pick("0", "1", "9", "../0"), Number(), Number(), shape, strides);
        }

        return pickle.Code('u').ToBytes();
    }

    // Fields of the zip file's own records.
    private static byte[] WithFields(Random random, byte[] file)
    {
        var records = new List<(int At, int Length)>();
        for (int at = 0; at + 4 <= file.Length; at++)
        {
            int length = BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at)) switch { 0x04034b50 => 30, 0x02014b50 => 46, 0x06054b50 => 22, _ => 0 };
            if (length > 0) records.Add((at, length));
        }

        byte[] changed = [.. file];
        Span<byte> number = stackalloc byte[8];
        for (int times = random.Next(1, 4); times > 0; times--)
        {
            (int at, int length) = random.Pick<(int, int)>([.. records]);
            int field = at + 4 + 2 * random.Next((length - 4) / 2), size = Math.Min(random.Pick(2, 4), file.Length - field);
            BinaryPrimitives.WriteUInt64LittleEndian(number, random.Chance(0.3) ? (ulong)random.Next(file.Length + 100) : random.Number());
            number[..size].CopyTo(changed.AsSpan(field));
        }

        return changed;
    }

    // The directory's 64-bit form, true or lying.
    private static byte[] With64(Random random, byte[] file)
    {
        int end = file.Length - 22;
        ulong count = BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(end + 10)), length = BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(end + 12)), at = BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(end + 16));
        ulong Perhaps(ulong value) => random.Chance(0.2) ? random.Number() : value;
        var record = new byte[56];
        BinaryPrimitives.WriteUInt32LittleEndian(record, 0x06064b50);
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(4), 44);
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(24), Perhaps(count));
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(32), Perhaps(count));
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(40), Perhaps(length));
        BinaryPrimitives.WriteUInt64LittleEndian(record.AsSpan(48), Perhaps(at));
        var locator = new byte[20];
        BinaryPrimitives.WriteUInt32LittleEndian(locator, 0x07064b50);
        BinaryPrimitives.WriteUInt64LittleEndian(locator.AsSpan(8), Perhaps((ulong)end));
        byte[] last = file[end..];
        BinaryPrimitives.WriteUInt16LittleEndian(last.AsSpan(10), ushort.MaxValue);
        BinaryPrimitives.WriteUInt32LittleEndian(last.AsSpan(12), uint.MaxValue);
        BinaryPrimitives.WriteUInt32LittleEndian(last.AsSpan(16), uint.MaxValue);
        return [.. file[..end], .. record, .. locator, .. last];
    }

    // Little that becomes much: a storage, or instructions.
    private static byte[] Bomb(Random random, TorchFile torch)
    {
        torch.Compression = CompressionLevel.Fastest;
        int size = random.Pick(100_000, 3_000_000, 20_000_000);
        if (random.Chance(0.5)) return torch.Storage("bomb", new byte[size]).Tensor("bomb", "ByteStorage", "bomb", 1, 0, [size], [1]).ToBytes();
        var instructions = new byte[size];
        instructions.AsSpan().Fill((byte)random.Pick<char>("]}()N2"));
        return torch.ToBytes([0x80, 2, (byte)'N', .. instructions, (byte)'.']);
    }
}
