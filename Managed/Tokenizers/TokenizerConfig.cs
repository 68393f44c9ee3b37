using System.Globalization;
using System.Text.Json;

namespace Treeline;

/// <summary>What the small files beside a vocabulary say: <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c>, <c>added_tokens.json</c>, each optional.</summary>
internal sealed class TokenizerConfig
{
    private static readonly string[] SpecialKeys = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

    private readonly Dictionary<string, string> _special = [];
    private readonly List<AddedToken> _added = [];

    public TokenizerConfig(string folder)
    {
        if (Find(folder, "special_tokens_map.json") is JsonFields map) ReadSpecial(map);
        if (Find(folder, "added_tokens.json") is JsonFields added) ReadAdded(added);
        if (Find(folder, "tokenizer_config.json") is not JsonFields config) return;
        ReadSpecial(config);
        if (config.OptionalObject("added_tokens_decoder") is JsonFields decoder) ReadDecoder(decoder);
        AddsBos = config.OptionalBool("add_bos_token");
        AddsEos = config.OptionalBool("add_eos_token");
        AddsPrefixSpace = config.OptionalBool("add_prefix_space");
        Legacy = config.OptionalBool("legacy");
    }

    public bool? AddsBos { get; }

    public bool? AddsEos { get; }

    public bool? AddsPrefixSpace { get; }

    /// <summary>LLaMA: whether text after a special token gets a space in front, as at the start.</summary>
    public bool? Legacy { get; }

    /// <summary>How a special token is written, by its key (<c>bos_token</c>), or null.</summary>
    public string? Special(string key) => _special.GetValueOrDefault(key);

    /// <summary>Tokens that are listed with an id, and special ones whose id the vocabulary has.</summary>
    public IEnumerable<AddedToken> Added(IReadOnlyDictionary<string, int> vocabulary)
    {
        foreach (AddedToken token in _added) yield return token;
        foreach (string name in _special.Values)
            if (vocabulary.TryGetValue(name, out int id)) yield return new AddedToken(name, id);
    }

    private static JsonFields? Find(string folder, string name)
    {
        string path = Path.Combine(folder, name);
        return File.Exists(path) ? JsonFile.Read(path) : null;
    }

    // A special token is a string, or an object with its text as content.
    private void ReadSpecial(JsonFields fields)
    {
        foreach (string key in SpecialKeys)
        {
            if (!fields.Has(key)) continue;
            _special[key] = fields.Value.GetProperty(key).ValueKind == JsonValueKind.Object ? fields.Object(key).String("content") : fields.String(key);
        }

        // Some files have an object of named ones here: those stand in added_tokens_decoder too.
        if (!fields.Has("additional_special_tokens") || fields.Value.GetProperty("additional_special_tokens").ValueKind != JsonValueKind.Array) return;
        foreach (JsonElement element in fields.Elements("additional_special_tokens"))
        {
            string name = element.ValueKind switch
            {
                JsonValueKind.String => fields.Text(element),
                JsonValueKind.Object => fields.Nested("additional_special_tokens", element).String("content"),
                _ => throw fields.Bad("additional_special_tokens", "expected strings or objects"),
            };
            _special[name] = name;
        }
    }

    // {"token": id, …}
    private void ReadAdded(JsonFields fields)
    {
        foreach (JsonProperty property in fields.Value.EnumerateObject())
        {
            string name = fields.Text(property);
            _added.Add(new AddedToken(name, TokenId(fields, name)));
        }
    }

    // {"id": {"content": "token", …}, …}
    private void ReadDecoder(JsonFields fields)
    {
        foreach (JsonProperty property in fields.Value.EnumerateObject())
        {
            string key = fields.Text(property);
            if (!int.TryParse(key, NumberStyles.None, CultureInfo.InvariantCulture, out int id) || !TokenizerText.IsId(id)) throw fields.Bad(key, "expected a token's id");
            _added.Add(AddedTokenOf(fields.Nested(key, property.Value), id));
        }
    }

    /// <summary>A token as tokenizer.json and tokenizer_config.json describe it.</summary>
    public static AddedToken AddedTokenOf(JsonFields fields, int id) => new(
        fields.String("content"),
        id,
        fields.OptionalBool("lstrip") ?? false,
        fields.OptionalBool("rstrip") ?? false,
        fields.OptionalBool("single_word") ?? false);

    /// <summary>A key's value as a token's id.</summary>
    public static int TokenId(JsonFields fields, string key) => fields.Int(key) is var id && TokenizerText.IsId(id) ? id : throw fields.Bad(key, $"expected a token's id, got {id}");
}
