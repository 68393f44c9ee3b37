using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Snapshots that are damaged, lie, or come from elsewhere.</summary>
public class SnapshotTests
{
    private const int Header = 8, Checksum = 32;
    private static readonly AttentionSpec Spec = AttentionSpec.Augmented(2, 1, 3, 16, convTaps: 3, valueDim: 2);
    private static readonly AttentionSpec Growing = AttentionSpec.Softmax(2, 1, 3, 2) with { ScoreScale = 0.3f };

    public static TheoryData<string> Names => [.. BackendsUnderTest.Names];

    [Theory, MemberData(nameof(Names))]
    public void Every_flipped_bit_and_every_shorter_length_is_seen_and_the_slot_stays(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, Spec, Growing);
        byte[] snapshot = rig.Snapshot(0), before = rig.Snapshot(1);
        for (int i = 0; i < snapshot.Length; i++)
        {
            byte[] flipped = [.. snapshot];
            flipped[i] ^= (byte)(1 << i % 8);
            Assert.Throws<SnapshotException>(() => rig.Restore(1, flipped));
            Assert.Throws<SnapshotException>(() => rig.Restore(1, snapshot[..i]));
        }

        Assert.Equal(before, rig.Snapshot(1));
        rig.Restore(1, snapshot);
        Assert.Equal(snapshot, rig.Snapshot(1));
    }

    [Theory, MemberData(nameof(Names))]
    public void Another_spec_version_or_number_of_layers_is_named(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, Spec, Growing), other = Rig(backend, Spec, Growing with { ScoreScale = null }), one = Rig(backend, Spec);
        byte[] snapshot = rig.Snapshot(0);
        Assert.Equal($"snapshot: layer 1 is of another spec: expected {Growing}, got {Growing with { ScoreScale = null }}", Refused(rig, other.Snapshot(0)));
        Assert.Equal("snapshot: expected 2 layers, got 1", Refused(rig, one.Snapshot(0)));
        Assert.Equal("snapshot: checksum does not match, the bytes are damaged", Refused(rig, [.. snapshot[..^1], (byte)(snapshot[^1] + 1)]));
        Assert.Equal("snapshot: not a state snapshot", Refused(rig, Lie(snapshot, 0, 1)));
        Assert.Equal("snapshot: expected version 1, got 2", Refused(rig, Lie(snapshot, 4, 2)));
        Assert.Equal("snapshot: element type Int32 is not a state's", Refused(rig, Lie(snapshot, 8, (int)ElementType.Int32)));
        Assert.Equal("snapshot: length -1", Refused(rig, Lie(snapshot, 12, -1)));
        Assert.Equal("snapshot: a body of 5 bytes cannot be", Refused(rig, [5, .. new byte[50]]));
    }

    // With a checksum that is right: sizes are believed only as far as the bytes go.
    [Theory, MemberData(nameof(Names))]
    public void A_length_that_the_bytes_do_not_back_asks_for_no_memory(string name)
    {
        using KernelBackend backend = BackendsUnderTest.Open(name);
        using AttentionRig rig = Rig(backend, Growing);
        byte[] snapshot = rig.Snapshot(0);
        const int Length = 100_000_000;
        snapshot = Lie(snapshot, 12, Length);
        int size = snapshot.AsSpan().IndexOf("key"u8) + 3 - Header;
        long bytes = Length * 3L * rig.State.StateType.Size();
        snapshot = Lie(Lie(snapshot, size, (int)bytes), size + 4, (int)(bytes >> 32));
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        Assert.Equal("snapshot: layer 0: field key ends early", Refused(rig, snapshot));
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - allocated, 0, 10_000_000);
    }

    [Fact]
    public void A_sequence_goes_on_on_another_backend()
    {
        foreach (string from in BackendsUnderTest.Names)
        {
            foreach (string to in BackendsUnderTest.Names)
            {
                using KernelBackend source = BackendsUnderTest.Open(from), target = BackendsUnderTest.Open(to);
                using AttentionRig there = Rig(source, Spec, Growing), here = Rig(target, Spec, Growing);
                here.Restore(3, there.Snapshot(0));
                Tokens next = Tokens.Random(new Random(8), Spec, 20);
                Close.To(there.Run(Feed.Advance(0, next))[0], here.Run(Feed.Advance(3, next))[0], Close.Attention, $"{from} to {to}");
                Assert.Equal(there.State.Length(0), here.State.Length(3));
            }
        }
    }

    [Fact]
    public void A_snapshot_is_read_in_every_culture()
    {
        using var backend = new OracleBackend();
        using AttentionRig rig = Rig(backend, Growing);
        byte[] snapshot = rig.Snapshot(0);
        CultureInfo before = CultureInfo.CurrentCulture;
        var comma = (CultureInfo)CultureInfo.InvariantCulture.Clone();
        comma.NumberFormat.NumberDecimalSeparator = ",";
        try
        {
            CultureInfo.CurrentCulture = comma;
            rig.Restore(1, snapshot);
            Assert.Equal(snapshot, rig.Snapshot(1));
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }

    [Fact]
    public void A_specs_text_shows_every_property_that_is_not_at_its_default()
    {
        Assert.Equal("AttentionSpec { Attention = softmax, QueryHeads = 2, KeyValueHeads = 1, HeadDim = 3, ValueDim = 2, ScoreScale = 0.3 }", Growing.ToString());
        string plain = Spec.ToString();
        foreach (var property in typeof(AttentionSpec).GetProperties().Where(property => property.CanWrite))
        {
            AttentionSpec changed = Spec with { };
            object other = property.PropertyType switch
            {
                var type when type == typeof(string) => "other",
                var type when type == typeof(bool) => !(bool)property.GetValue(changed)!,
                var type when type.IsEnum => Enum.GetValues(type).GetValue(2)!,
                var type when type == typeof(int) => 77,
                _ => 0.7f,
            };
            property.SetValue(changed, other);
            Assert.True(plain != changed.ToString(), property.Name);
        }
    }

    private static AttentionRig Rig(KernelBackend backend, params AttentionSpec[] specs)
    {
        var rig = new AttentionRig(backend, specs);
        rig.Run(Feed.Advance(0, Tokens.Random(new Random(1), Spec, 21)), Feed.Advance(1, Tokens.Random(new Random(2), Spec, 4)));
        return rig;
    }

    private static string Refused(AttentionRig rig, byte[] snapshot) => Assert.Throws<SnapshotException>(() => rig.Restore(1, snapshot)).Message;

    /// <summary>Another number at a place of the body, and the checksum that goes with it.</summary>
    private static byte[] Lie(byte[] snapshot, int at, int number)
    {
        byte[] body = snapshot[Header..^Checksum];
        BinaryPrimitives.WriteInt32LittleEndian(body.AsSpan(at), number);
        return [.. snapshot[..Header], .. body, .. SHA256.HashData(body)];
    }
}
