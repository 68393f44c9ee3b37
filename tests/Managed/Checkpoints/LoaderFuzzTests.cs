using Xunit;

namespace Treeline.Tests.Managed;

/// <summary>Damaged and hostile files end in a <see cref="CheckpointException"/> or a correct load, within a bound on memory, never in anything else.</summary>
public sealed class LoaderFuzzTests
{
    // What opening a file may allocate: for names and descriptions some times its bytes, and the messages.
    private const long Free = 64 << 10, PerByte = 100;

    // A pickle of one byte an instruction makes a value of about 60 bytes a byte; packed it may unpack to this much.
    private static long MostPickle(long file) => Math.Min(16 << 20, (64 << 10) + 100 * file);

    [Fact]
    public void Damaged_safetensors_are_refused_or_read() => Fuzzing.Run(0, 1_000, Safetensors);

    [Fact]
    public void Damaged_pytorch_files_are_refused_or_read() => Fuzzing.Run(0, 1_000, Torch);

    [Fact, Trait("tier", "full")]
    public void Fifty_thousand_damaged_safetensors_are_refused_or_read() => Fuzzing.Run(1_000, 50_000, Safetensors);

    [Fact, Trait("tier", "full")]
    public void Fifty_thousand_damaged_pytorch_files_are_refused_or_read() => Fuzzing.Run(1_000, 50_000, Torch);

    [Fact]
    public void Both_outcomes_occur()
    {
        var loaded = new bool[2][];
        loaded[0] = [.. Enumerable.Range(0, 200).Select(seed => Load(SafetensorsCases.Make(seed).File, long.MaxValue))];
        loaded[1] = [.. Enumerable.Range(0, 200).Select(seed => Load(TorchCases.Make(seed).File, long.MaxValue))];
        foreach (bool[] outcomes in loaded) Assert.InRange(outcomes.Count(outcome => outcome), 15, 150);
    }

    private static void Safetensors(int seed)
    {
        (byte[] file, bool isSound) = SafetensorsCases.Make(seed);
        bool loaded = Load(file, Free + PerByte * file.Length);
        Assert.True(loaded || !isSound, "a sound file was refused");
    }

    private static void Torch(int seed)
    {
        (byte[] file, bool isSound, bool isPacked) = TorchCases.Make(seed);
        bool loaded = Load(file, Free + PerByte * (isPacked ? MostPickle(file.Length) : file.Length));
        Assert.True(loaded || !isSound, "a sound file was refused");
    }

    /// <summary>Opens a file and touches all of it; false where it is refused.</summary>
    private static bool Load(byte[] file, long mostAllocated)
    {
        using var memory = new GuardedFile(file);
        long before = GC.GetAllocatedBytesForCurrentThread();
        bool loaded = false;
        try
        {
            using ITensorFile opened = Checkpoint.OpenFile("fuzz", memory);
            Touch(opened);
            loaded = true;
        }
        catch (CheckpointException e)
        {
            Assert.StartsWith("fuzz: ", e.Message, StringComparison.Ordinal);
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(allocated <= mostAllocated, $"a file of {file.Length} bytes took {allocated} bytes of memory");
        return loaded;
    }

    private static void Touch(ITensorFile file)
    {
        var names = new HashSet<string>();
        foreach (CheckpointTensor tensor in file.Tensors)
        {
            Assert.True(names.Add(tensor.Name));
            if (!tensor.IsSupported) continue;
            Assert.Equal(tensor.Count, tensor.Shape.ToArray().Aggregate(1L, (product, size) => product * size));
            long sum = 0;
            foreach (byte value in tensor.Data) sum += value;
            Assert.InRange(sum, 0, 255 * tensor.ByteLength);
        }
    }
}
