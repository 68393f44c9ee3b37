using System.Security.Cryptography;
using System.Text;
using Treeline.Kernels;

namespace Treeline;

/// <summary>What a saved sequence holds beside its state: tokens, options, text position. The byte format: docs/snapshot-format.md.</summary>
internal sealed class SequenceSnapshot
{
    private const uint Magic = 0x51_53_4C_54;               // "TLSQ"
    private const int Version = 1;
    private const int ChecksumBytes = 32;                   // SHA-256 of everything before it

    public required int[] Tokens { get; init; }

    public required int PromptLength { get; init; }

    public required FinishReason FinishReason { get; init; }

    public required int TakenCharacters { get; init; }

    public required float[] LogProbabilities { get; init; }

    /// <summary>The hidden state that gave the last token; empty where none is kept.</summary>
    public required float[] Hidden { get; init; }

    public required GenerationOptions Options { get; init; }

    /// <summary>True where the options had code of the caller's, which cannot be saved.</summary>
    public required bool HasCode { get; init; }

    /// <summary>Where the state's own snapshot begins.</summary>
    public required Stream State { get; init; }

    public static void Write(DecodingBatch batch, Sequence sequence, Stream to)
    {
        using var body = new MemoryStream();
        using (var writer = new BinaryWriter(body, Encoding.UTF8, leaveOpen: true))
        {
            writer.Write(Magic);
            writer.Write(Version);
            writer.Write(batch.Model.VocabularySize);
            writer.Write(sequence.PromptLength);
            writer.Write((int)sequence.FinishReason);
            writer.Write(sequence.TakenCharacters);
            WriteAll(writer, sequence.Tokens, static (w, token) => w.Write(token));
            WriteAll(writer, sequence.LogProbabilities, static (w, number) => w.Write(number));
            WriteAll(writer, (ReadOnlySpan<float>)batch.ReadHidden(sequence), static (w, number) => w.Write(number));
            Write(writer, sequence.Options);
            writer.Flush();
            batch.State.Snapshot(sequence.Slot, body);
        }

        byte[] bytes = body.ToArray();
        to.Write(BitConverter.GetBytes((long)bytes.Length));
        to.Write(bytes);
        to.Write(SHA256.HashData(bytes));
    }

    public static SequenceSnapshot Read(DecodingBatch batch, Stream from)
    {
        try
        {
            using var reader = new BinaryReader(new MemoryStream(ReadChecked(from)), Encoding.UTF8, leaveOpen: true);
            return Read(batch, reader);
        }
        catch (Exception e) when (e is EndOfStreamException or FormatException or ArgumentException or IOException)
        {
            throw new SnapshotException($"snapshot: ends early or is malformed ({e.Message})", e);
        }
    }

    private static SequenceSnapshot Read(DecodingBatch batch, BinaryReader reader)
    {
        if (reader.ReadUInt32() != Magic) throw new SnapshotException("snapshot: not a saved sequence");
        if (reader.ReadInt32() is var version && version != Version) throw new SnapshotException($"snapshot: expected version {Version}, got {version}");
        if (reader.ReadInt32() is var vocabulary && vocabulary != batch.Model.VocabularySize)
            throw new SnapshotException($"snapshot: expected a model of {batch.Model.VocabularySize} tokens, got one of {vocabulary}");
        int promptLength = reader.ReadInt32();
        var reason = (FinishReason)reader.ReadInt32();
        int taken = reader.ReadInt32();
        int[] tokens = ReadAll(reader, static r => r.ReadInt32());
        float[] logProbabilities = ReadAll(reader, static r => r.ReadSingle());
        float[] hidden = ReadAll(reader, static r => r.ReadSingle());
        GenerationOptions options = ReadOptions(reader, out bool hasCode);
        if (promptLength < 1 || promptLength > tokens.Length || !Enum.IsDefined(reason) || reason == FinishReason.Failed || taken < 0 || logProbabilities.Length > tokens.Length)
            throw new SnapshotException("snapshot: lengths contradict each other");
        if (tokens.FirstOrDefault(token => (uint)token >= (uint)batch.Model.VocabularySize, 0) is var stranger and not 0)
            throw new SnapshotException($"snapshot: expected tokens from 0 to {batch.Model.VocabularySize - 1}, got {stranger}");
        return new SequenceSnapshot
        {
            Tokens = tokens,
            PromptLength = promptLength,
            FinishReason = reason,
            TakenCharacters = taken,
            LogProbabilities = logProbabilities,
            Hidden = hidden,
            Options = options,
            HasCode = hasCode,
            State = reader.BaseStream,
        };
    }

    // Reads what is there instead of trusting the size: a lying header must not ask for memory that the stream does not back.
    private static byte[] ReadChecked(Stream from)
    {
        Span<byte> header = stackalloc byte[sizeof(long)];
        from.ReadExactly(header);
        long size = BitConverter.ToInt64(header);
        if (size is < 1 or > int.MaxValue - ChecksumBytes) throw new SnapshotException($"snapshot: a body of {size} bytes cannot be");
        using var body = new MemoryStream();
        var chunk = new byte[1 << 16];
        for (long left = size + ChecksumBytes; left > 0;)
        {
            int got = from.Read(chunk, 0, (int)Math.Min(chunk.Length, left));
            if (got == 0) throw new EndOfStreamException($"{left} bytes are missing");
            body.Write(chunk, 0, got);
            left -= got;
        }

        byte[] bytes = body.ToArray();
        if (!CryptographicOperations.FixedTimeEquals(SHA256.HashData(bytes.AsSpan(0, (int)size)), bytes.AsSpan((int)size)))
            throw new SnapshotException("snapshot: checksum does not match, the bytes are damaged");
        return bytes[..(int)size];
    }

    private static void Write(BinaryWriter writer, GenerationOptions options)
    {
        writer.Write(options.MaxTokens);
        writer.Write(options.Temperature);
        writer.Write(options.TopK);
        writer.Write(options.TopP);
        writer.Write(options.MinP);
        writer.Write(options.RepetitionPenalty);
        writer.Write(options.Seed);
        writer.Write(options.StopTokens is not null);
        WriteAll(writer, (ReadOnlySpan<int>)[.. options.StopTokens ?? []], static (w, token) => w.Write(token));
        WriteAll(writer, (ReadOnlySpan<string>)[.. options.StopStrings], static (w, text) => w.Write(text));
        writer.Write(options.LogProbabilities);
        writer.Write((int)options.Drafter);
        writer.Write(options.TreePolicy.ToString());
        writer.Write(options.Acceptance is { } rule ? (int)rule : -1);
        writer.Write(options.TypicalThreshold);
        writer.Write(options.TypicalAlpha);
        writer.Write(options.Processors.Count > 0 || options.CustomDrafter is not null);
    }

    private static GenerationOptions ReadOptions(BinaryReader reader, out bool hasCode)
    {
        int maxTokens = reader.ReadInt32();
        float temperature = reader.ReadSingle();
        int topK = reader.ReadInt32();
        float topP = reader.ReadSingle(), minP = reader.ReadSingle(), penalty = reader.ReadSingle();
        ulong seed = reader.ReadUInt64();
        bool ownStops = reader.ReadBoolean();
        int[] stopTokens = ReadAll(reader, static r => r.ReadInt32());
        var options = new GenerationOptions
        {
            MaxTokens = maxTokens,
            Temperature = temperature,
            TopK = topK,
            TopP = topP,
            MinP = minP,
            RepetitionPenalty = penalty,
            Seed = seed,
            StopTokens = ownStops ? stopTokens : null,
            StopStrings = ReadAll(reader, static r => r.ReadString()),
            LogProbabilities = reader.ReadBoolean(),
            Drafter = (Drafter)reader.ReadInt32(),
            TreePolicy = TreePolicy.Parse(reader.ReadString()),
            Acceptance = reader.ReadInt32() is var rule and >= 0 ? (Acceptance)rule : null,
            TypicalThreshold = reader.ReadSingle(),
            TypicalAlpha = reader.ReadSingle(),
        };
        hasCode = reader.ReadBoolean();
        return options;
    }

    private static void WriteAll<T>(BinaryWriter writer, ReadOnlySpan<T> items, Action<BinaryWriter, T> write)
    {
        writer.Write(items.Length);
        foreach (T item in items) write(writer, item);
    }

    private static T[] ReadAll<T>(BinaryReader reader, Func<BinaryReader, T> read)
    {
        int count = reader.ReadInt32();
        if (count < 0 || count > reader.BaseStream.Length) throw new FormatException($"a list of {count} items cannot be");
        var items = new T[count];
        for (int i = 0; i < count; i++) items[i] = read(reader);
        return items;
    }
}
