using System.Text.Json;

namespace Treeline;

/// <summary>Reads Hugging Face's <c>tokenizer.json</c> where it describes a byte-level BPE; what would change the tokens and is not known is refused by name.</summary>
internal sealed class TokenizerJson
{
    public const string FileName = "tokenizer.json";

    private readonly string _path;
    private readonly JsonFields _root;
    private readonly List<TextSplitter> _splitters = [];
    private readonly List<int> _before = [];
    private readonly List<int> _after = [];
    private bool _prefixSpace;
    private bool _isByteLevel;

    private TokenizerJson(string path)
    {
        _path = path;
        _root = JsonFile.Read(path);
    }

    public static ByteLevelModel Read(string folder) => new TokenizerJson(Path.Combine(folder, FileName)).Read();

    private ByteLevelModel Read()
    {
        JsonFields model = _root.Object("model");
        // Files from before 2021 have no type; BPE is the one with merges.
        if (model.OptionalString("type") is string type && type != "BPE") throw model.Unsupported("type", $"'{type}' is not supported; supported is BPE over bytes (and SentencePiece's BPE as tokenizer.model)");
        foreach (string key in (ReadOnlySpan<string>)["continuing_subword_prefix", "end_of_word_suffix"])
            if (model.OptionalString(key) is { Length: > 0 } value) throw model.Unsupported(key, $"'{value}' is not supported");
        if (model.OptionalFloat("dropout") is > 0) throw model.Unsupported("dropout", "is not supported");
        ReadNormalizer();
        ReadPreTokenizer(_root.OptionalObject("pre_tokenizer"));
        if (!_isByteLevel) throw _root.Unsupported("pre_tokenizer", "one without ByteLevel is not supported; supported is BPE over bytes (and SentencePiece's BPE as tokenizer.model)");
        if (_root.OptionalObject("decoder") is JsonFields decoder && decoder.String("type") is var name && name != "ByteLevel") throw decoder.Unsupported("type", $"'{name}' is not supported");
        Dictionary<string, int> vocabulary = VocabularyFiles.ReadVocabulary(model.Object("vocab"));
        ReadPostProcessor(_root.OptionalObject("post_processor"));
        return new ByteLevelModel
        {
            File = _path,
            Vocabulary = vocabulary,
            Merges = ReadMerges(model),
            Added = [.. _root.Elements("added_tokens").Select(element => _root.Nested("added_tokens", element)).Select(token => TokenizerConfig.AddedTokenOf(token, TokenizerConfig.TokenId(token, "id")))],
            Splitters = _splitters,
            AddsPrefixSpace = _prefixSpace,
            IgnoresMerges = model.OptionalBool("ignore_merges") ?? false,
            Before = _before,
            After = _after,
        };
    }

    // A list of none is none.
    private void ReadNormalizer()
    {
        if (_root.OptionalObject("normalizer") is not JsonFields normalizer) return;
        if (normalizer.String("type") is var type && type == "Sequence")
        {
            IReadOnlyList<JsonElement> all = normalizer.Elements("normalizers");
            if (all.Count == 0) return;
            type = normalizer.Nested("normalizers", all[0]).String("type");
        }

        throw normalizer.Unsupported("type", $"'{type}' is not supported: texts are taken as they are");
    }

    private void ReadPreTokenizer(JsonFields? fields)
    {
        if (fields is not JsonFields step) return;
        if (_isByteLevel) throw step.Bad("type", "nothing may follow ByteLevel");
        switch (step.String("type"))
        {
            case "Sequence":
                foreach (JsonElement element in step.Elements("pretokenizers")) ReadPreTokenizer(step.Nested("pretokenizers", element));
                break;
            case "ByteLevel":
                _isByteLevel = true;
                _prefixSpace = step.OptionalBool("add_prefix_space") ?? true;
                if (step.OptionalBool("use_regex") ?? true) _splitters.Add(new TextSplitter(TextSplitter.Gpt2));
                if (_prefixSpace && _splitters.Count > 1) throw step.Unsupported("add_prefix_space", "is not supported after a split");
                break;
            case "Split":
                ReadSplit(step);
                break;
            case "Digits":
                _splitters.Add(new TextSplitter(step.OptionalBool("individual_digits") ?? false ? @"\p{N}" : @"\p{N}+"));
                break;
            case var type:
                throw step.Unsupported("type", $"'{type}' is not supported; supported are ByteLevel, Split, Digits and a Sequence of them");
        }
    }

    // Isolated: matches and the text between. Removed and inverted: the matches alone.
    private void ReadSplit(JsonFields step)
    {
        string behavior = step.String("behavior");
        bool inverted = step.OptionalBool("invert") ?? false;
        if (behavior != "Isolated" && !(behavior == "Removed" && inverted)) throw step.Unsupported("behavior", $"'{behavior}'{(inverted ? "" : ", not inverted,")} is not supported; supported are Isolated, and Removed where it is inverted");
        JsonFields pattern = step.Object("pattern");
        try
        {
            string text = pattern.OptionalString("Regex") ?? System.Text.RegularExpressions.Regex.Escape(pattern.String("String"));
            _splitters.Add(new TextSplitter(text, keepsGaps: behavior == "Isolated"));
        }
        catch (ArgumentException e)
        {
            throw pattern.Unsupported("Regex", $"is not supported: {e.Message}");
        }
    }

    // ByteLevel there moves offsets only, which are not asked for.
    private void ReadPostProcessor(JsonFields? fields)
    {
        if (fields is not JsonFields step) return;
        switch (step.String("type"))
        {
            case "Sequence":
                foreach (JsonElement element in step.Elements("processors")) ReadPostProcessor(step.Nested("processors", element));
                break;
            case "ByteLevel":
                break;
            case "TemplateProcessing":
                ReadTemplate(step);
                break;
            case var type:
                throw step.Unsupported("type", $"'{type}' is not supported; supported are ByteLevel, TemplateProcessing and a Sequence of them");
        }
    }

    // [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, …]
    private void ReadTemplate(JsonFields template)
    {
        bool seen = false;
        int front = 0;
        foreach (JsonElement element in template.Elements("single"))
        {
            JsonFields part = template.Nested("single", element);
            if (part.OptionalObject("SpecialToken") is JsonFields special)
            {
                IReadOnlyList<int> ids = template.Object("special_tokens").Object(special.String("id")).Ints("ids");
                if (seen) _after.AddRange(ids);
                else _before.InsertRange(front, ids);
                if (!seen) front += ids.Count;
            }
            else if (part.Has("Sequence") && !seen) seen = true;
            else throw template.Bad("single", "expected special tokens around one sequence");
        }

        if (!seen) throw template.Bad("single", "expected special tokens around one sequence");
    }

    // ["left right", …] or, since 2024, [["left", "right"], …]
    private static List<(string, string)> ReadMerges(JsonFields model)
    {
        if (!model.Has("merges")) throw model.Missing("merges");
        var merges = new List<(string, string)>();
        foreach (JsonElement element in model.Elements("merges"))
        {
            (string, string)? merge = element.ValueKind switch
            {
                JsonValueKind.String => VocabularyFiles.Merge(model.Text(element)),
                JsonValueKind.Array when element.GetArrayLength() == 2 && element[0].ValueKind == JsonValueKind.String && element[1].ValueKind == JsonValueKind.String =>
                    VocabularyFiles.Merge($"{model.Text(element[0])} {model.Text(element[1])}"),
                _ => null,
            };
            merges.Add(merge ?? throw model.Bad("merges", $"[{merges.Count}]: expected two tokens"));
        }

        return merges;
    }
}
