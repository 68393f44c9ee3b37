using System.Security.Cryptography;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Treeline.Tests.Managed.Decoding;
using Xunit;

namespace Treeline.Tests.Managed;

/// <summary>Damaged snapshots end in their typed exception and change nothing, with a checksum that does not fit and with one that does.</summary>
public sealed class SnapshotFuzzTests
{
    private const long Free = 300 << 10, PerByte = 20;

    [Fact]
    public void Damaged_states_are_refused() => States(0, 1_000);

    [Fact]
    public void Damaged_sequences_are_refused() => Sequences(0, 1_000);

    [Fact, Trait("tier", "full")]
    public void Many_damaged_states_are_refused() => States(1_000, 20_000);

    [Fact, Trait("tier", "full")]
    public void Many_damaged_sequences_are_refused() => Sequences(1_000, 20_000);

    [Fact]
    public void A_string_of_no_possible_length_is_refused()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var rig = new AttentionRig(backend, [AttentionSpec.Softmax(1, 1, 2)]);
        byte[] body = rig.Snapshot(0)[8..^32];
        new byte[] { 0xff, 0xff, 0xff, 0xff, 0x0f }.CopyTo(body, 20);           // the length of the first layer's spec
        Assert.Contains("malformed", Assert.Throws<SnapshotException>(() => rig.Restore(0, Forged(body))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_field_longer_than_the_rest_is_refused_before_it_is_allocated()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var rig = new AttentionRig(backend, [AttentionSpec.Softmax(1, 1, 2)]);
        byte[] whole = rig.Snapshot(0), body = whole[8..^32];
        int position = body.AsSpan().LastIndexOf("key"u8) + 3;
        BitConverter.GetBytes(1 << 24).CopyTo(body, 12);                        // tokens
        BitConverter.GetBytes((long)(1 << 24) * 2 * 4).CopyTo(body, position);
        long before = GC.GetAllocatedBytesForCurrentThread();
        var e = Assert.Throws<SnapshotException>(() => rig.Restore(0, Forged(body)));
        Assert.Contains("ends early", e.Message, StringComparison.Ordinal);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
    }

    [Fact]
    public void Options_that_cannot_be_are_refused()
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, 23);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 2 });
        using Sequence sequence = batch.Add([1, 2, 3], new GenerationOptions { Seed = 0x1122334455667788 });
        using var stream = new MemoryStream();
        sequence.Save(stream);
        byte[] body = stream.ToArray()[8..^32];
        int seed = body.AsSpan().IndexOf(BitConverter.GetBytes(0x1122334455667788));
        BitConverter.GetBytes(-1f).CopyTo(body, seed - 12);                     // before the smallest probability and the penalty
        Assert.Contains("snapshot: TopP: expected", Assert.Throws<SnapshotException>(() => batch.Restore(new MemoryStream(Forged(body)))).Message, StringComparison.Ordinal);
        Assert.Equal(1, batch.FreeSlots);
    }

    private static void States(int first, int count)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var rig = new AttentionRig(backend, [AttentionSpec.Augmented(2, 1, 4, groupSize: 16, convTaps: 3), AttentionSpec.Softmax(2, 1, 4)], slots: 2, capacity: 100);
        Tokens tokens = Tokens.Random(new Random(1), rig.Specs[0], 40);
        rig.Advance(0, tokens, 21);
        rig.Advance(1, tokens, 5);
        byte[] whole = rig.Snapshot(0), other = rig.Snapshot(1);
        Fuzzing.Run(first, count, seed =>
        {
            byte[] damaged = Damage(new Random(seed), whole, out bool isForged);
            bool restored = Accepts(() => rig.State.Restore(1, new MemoryStream(damaged)), damaged.Length);
            if (!restored)
            {
                Assert.Equal(other, rig.Snapshot(1));
                return;
            }

            Assert.True(isForged || damaged.AsSpan().StartsWith(whole), "damage was not noticed");
            rig.Advance(1, tokens.Range(0, 3), 3);
            rig.Restore(1, other);
        });
    }

    private static void Sequences(int first, int count)
    {
        using KernelBackend backend = BackendsUnderTest.Open("cpu");
        using var model = new ToyModel(backend, 23);
        using var batch = new DecodingBatch(model, new DecodingBatchOptions { Slots = 2, Capacity = 200 });
        using Sequence sequence = batch.Add([1, 2, 3], new GenerationOptions { MaxTokens = 20, LogProbabilities = true, Drafter = Drafter.Lookup, StopTokens = [4] });
        for (int i = 0; i < 4; i++) batch.Step(CancellationToken.None);
        using var stream = new MemoryStream();
        sequence.Save(stream);
        byte[] whole = stream.ToArray();
        Fuzzing.Run(first, count, seed =>
        {
            byte[] damaged = Damage(new Random(seed), whole, out bool isForged);
            Sequence? restored = null;
            if (Accepts(() => restored = batch.Restore(new MemoryStream(damaged)), damaged.Length))
                Assert.True(isForged || damaged.AsSpan().StartsWith(whole), "damage was not noticed");
            restored?.Dispose();
            Assert.Equal(1, batch.FreeSlots);
        });
    }

    // Half of them with the right length and checksum: then the contents lie.
    private static byte[] Damage(Random random, byte[] whole, out bool isForged)
    {
        isForged = random.Chance(0.5);
        if (!isForged) return random.Damage(whole);
        return Forged(random.Damage(whole[8..^32]));
    }

    private static byte[] Forged(byte[] body) => [.. BitConverter.GetBytes((long)body.Length), .. body, .. SHA256.HashData(body)];

    private static bool Accepts(Action restore, int length)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        bool accepted = true;
        try
        {
            restore();
        }
        catch (Exception e) when (e is SnapshotException or OutOfCapacityException)
        {
            accepted = false;
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(allocated <= Free + PerByte * length, $"a snapshot of {length} bytes took {allocated} bytes of memory");
        return accepted;
    }
}
