using Treeline.Tests.Architecture;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Managed;

/// <summary>Damaged configurations and tokenizers end in a <see cref="CheckpointException"/> or are read.</summary>
public sealed class SmallFileFuzzTests : IDisposable
{
    private static readonly string Shipped = Path.Combine(Sources.Root, "models", "shakespeare-2m");

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Damaged_configurations_are_refused_or_read() => Configurations(0, 300);

    [Fact]
    public void Damaged_tokenizers_are_refused_or_read() => Tokenizers(0, 200);

    [Fact, Trait("tier", "full")]
    public void Many_damaged_configurations_are_refused_or_read() => Configurations(1_000, 3_000);

    [Fact, Trait("tier", "full")]
    public void Many_damaged_tokenizers_are_refused_or_read() => Tokenizers(1_000, 3_000);

    private void Configurations(int first, int count)
    {
        byte[] config = File.ReadAllBytes(Path.Combine(Shipped, "config.json"));
        Fuzzing.Run(first, count, seed =>
        {
            _folder.Write("config.json", new Random(seed).Damage(config));
            Attempt(() => ModelConfig.Load(_folder.Path));
        });
    }

    private void Tokenizers(int first, int count)
    {
        (string Name, byte[] Bytes)[] gpt2 =
        [
            ("vocab.json", File.ReadAllBytes(Path.Combine(Shipped, "vocab.json"))),
            ("merges.txt", File.ReadAllBytes(Path.Combine(Shipped, "merges.txt"))),
            ("tokenizer_config.json", """{"add_bos_token":true,"bos_token":{"content":"<|endoftext|>"},"added_tokens_decoder":{"1024":{"content":"<x>","lstrip":true}}}"""u8.ToArray()),
            ("special_tokens_map.json", """{"eos_token":"<|endoftext|>","additional_special_tokens":["<x>"]}"""u8.ToArray()),
        ];
        (string, byte[])[] hugging = [("tokenizer.json", TokenizerJsonTests.Sample())];
        (string, byte[])[] llama = [("tokenizer.model", SentencePieceTests.Small().ToBytes()), ("tokenizer_config.json", """{"add_bos_token":true,"legacy":false}"""u8.ToArray())];
        Fuzzing.Run(first, count, seed =>
        {
            var random = new Random(seed);
            (string Name, byte[] Bytes)[] files = random.Pick<(string, byte[])[]>(gpt2, hugging, llama);
            foreach (string old in Directory.GetFiles(_folder.Path)) File.Delete(old);
            int damaged = random.Next(files.Length);
            for (int i = 0; i < files.Length; i++) _folder.Write(files[i].Name, i == damaged ? random.Damage(files[i].Bytes) : files[i].Bytes);
            Attempt(() => Use(TextTokenizer.Load(_folder.Path)!, random));
        });
    }

    // What a vocabulary lacks it may refuse, naming it.
    private static void Use(TextTokenizer tokenizer, Random random)
    {
        try
        {
            tokenizer.Decode(tokenizer.Encode("ab <x>é " + RandomTexts.Next(random, 20)));
        }
        catch (ArgumentException e)
        {
            Assert.StartsWith("text: the vocabulary has no token for", e.Message, StringComparison.Ordinal);
        }
    }

    private static void Attempt(Action load)
    {
        try
        {
            load();
        }
        catch (CheckpointException e)
        {
            Assert.NotEmpty(e.Message);
        }
    }
}
