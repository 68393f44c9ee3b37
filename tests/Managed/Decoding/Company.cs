using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>Random lives of the sequences of one batch, each checked against its solo run.</summary>
internal sealed class Company(DecodingBatch batch, Random random)
{
    private readonly List<Member> _members = [];

    public int Joined { get; private set; }

    public int Forked { get; private set; }

    public int Cancelled { get; private set; }

    public int Continued { get; private set; }

    public int Saved { get; private set; }

    /// <summary>Something happens between two steps, or nothing.</summary>
    public void Change()
    {
        if (batch.FreeSlots > 0 && random.Chance(0.4)) Join();
        if (_members.Count == 0) return;
        Member member = _members[random.Next(_members.Count)];
        switch (random.Next(10))
        {
            case 0: Leave(member); break;
            case 1 or 2 when batch.FreeSlots > 0: Fork(member); break;
            case 3: Cancel(member); break;
            case 4: member.Sequence.Resume(); break;
            case 5 when member.Sequence.IsFinished: Continue(member); break;
            case 6: Save(member); break;
            default: if (member.Sequence.IsFinished) Leave(member); break;
        }
    }

    /// <summary>One step is one forward pass, for however many sequences; none where nobody wants one.</summary>
    public bool Step()
    {
        long forwards = batch.Model.Forwards;
        int wanting = batch.Sequences.Count(sequence => !sequence.IsFinished);
        bool any = batch.Step(TestContext.Current.CancellationToken);
        Assert.Equal(wanting > 0, any);
        Assert.Equal(any ? forwards + 1 : forwards, batch.Model.Forwards);
        return any;
    }

    /// <summary>All leave.</summary>
    public void Part()
    {
        foreach (Member member in _members.ToArray())
        {
            Assert.True(member.Sequence.IsFinished);
            Leave(member);
        }
    }

    public override string ToString() => $"{Joined} joined, {Forked} forked, {Cancelled} cancelled, {Continued} continued, {Saved} saved";

    private void Join()
    {
        int[] prompt = SpeculationTests.Prompt(random);
        GenerationOptions options = Options(0);
        _members.Add(new Member(batch.Add(prompt, options), prompt));
        Joined++;
    }

    private void Leave(Member member)
    {
        Check(member);
        member.Sequence.Dispose();
        _members.Remove(member);
    }

    private void Fork(Member member)
    {
        Check(member);
        GenerationOptions? options = member.Sequence.IsFinished || random.Chance(0.5) ? null : Options(member.Sequence.Generated.Length);
        Sequence fork = member.Sequence.Fork(options);
        _members.Add(new Member(fork, fork.Tokens.ToArray()));
        Forked++;
    }

    private void Cancel(Member member)
    {
        if (member.Sequence.IsFinished) return;
        member.Sequence.Cancel();
        Cancelled++;
    }

    private void Continue(Member member)
    {
        Check(member);
        int[] more = [.. Enumerable.Range(0, random.Next(0, 30)).Select(_ => random.Next(batch.Model.VocabularySize))];
        if (member.Sequence.Count + more.Length > 800) return;
        member.Sequence.Continue(more, Options(0));
        member.Given = member.Sequence.Tokens.ToArray();
        Continued++;
    }

    private void Save(Member member)
    {
        using var stream = new MemoryStream();
        member.Sequence.Save(stream);
        GenerationOptions options = member.Sequence.Options;
        member.Sequence.Dispose();
        stream.Position = 0;
        member.Sequence = batch.Restore(stream, options);
        Saved++;
    }

    /// <summary>What has been generated so far is the beginning of the solo run's text.</summary>
    private void Check(Member member)
    {
        Sequence sequence = member.Sequence;
        int[] got = sequence.Tokens[member.Given.Length..].ToArray();
        if (got.Length == 0) return;
        int[] want = OneAtATime.Generate(batch.Model, member.Given, sequence.Options with { MaxTokens = got.Length });
        Assert.Equal(want, got);
        if (sequence.FinishReason == FinishReason.MaxTokens) Assert.Equal(sequence.Options.MaxTokens, sequence.Generated.Length);
        if (sequence.FinishReason == FinishReason.StopToken) Assert.Contains(got[^1], sequence.Options.StopTokens!);
    }

    private GenerationOptions Options(int generated)
    {
        GenerationOptions options = SpeculationTests.Options(random);
        options = options with { MaxTokens = options.MaxTokens + generated };
        return random.Next(4) switch
        {
            0 => options,
            1 => options with { Drafter = Drafter.Medusa, TreePolicy = random.Pick(TreePolicy.Auto, TreePolicy.Medusa63, TreePolicy.Chain(3)) },
            2 => options with { Drafter = Drafter.Lookup, TreePolicy = random.Pick(TreePolicy.Auto, TreePolicy.Chain(5)) },
            _ => options with { CustomDrafter = new Noise(random.Next(), levels: random.Next(1, 20), ranks: random.Next(1, 4), batch.Model.VocabularySize) },
        };
    }

    /// <summary>A sequence and the tokens that it did not write by its present options.</summary>
    private sealed class Member(Sequence sequence, int[] given)
    {
        public Sequence Sequence { get; set; } = sequence;

        public int[] Given { get; set; } = given;
    }
}
