using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>Op <c>model</c>: a folder with a whole model, token ids and what it gives for them.</summary>
internal sealed class ModelCase : GoldenCase
{
    private readonly string _folder;
    private readonly ModelConfig _config;

    public ModelCase(string folder, CaseFile file) : base(file)
    {
        _folder = folder;
        if (file.Op != "model") throw ToolException.Unsupported($"{file.Path}: op {file.Op} is not a model folder's; expected model");
        _config = ModelConfig.Load(folder);
        file.RequireOutputs("logits", "medusa_logits", "greedy");
        file.WarnOfUnread("ids", "prompt", "medusa_positions", "logits", "medusa_logits", "greedy", "greedy_margin");
    }

    public override string Path => _folder;

    public override string Kind => _config.ModelType;

    public override bool IsModel => true;

    private bool WantsLogits => File.Outputs?.Contains("logits") ?? File.Has("ids");

    // Positions ask for the heads too where the list of outputs does not.
    private bool WantsHeads => File.Has("medusa_positions") || (File.Outputs?.Contains("medusa_logits") ?? File.Has("medusa_logits"));

    private bool WantsGreedy => File.Outputs?.Contains("greedy") ?? File.Has("prompt");

    protected override IReadOnlyList<CaseOutput> Compute(KernelBackend backend, CaseOptions options, double tolerance, CancellationToken cancellation)
    {
        int[] ids = WantsLogits || WantsHeads ? Ids("ids") : [];
        int[] positions = WantsHeads ? Positions(ids.Length) : [];
        int[] prompt = WantsGreedy ? Ids("prompt") : [];
        int greedyTokens = WantsGreedy ? GreedyTokens() : 0;

        using CausalModel model = CausalModel.Load(_folder, backend, new LoadOptions { Tokenizer = false, Logger = options.Logger });
        TokenIds.RequireKnown($"{File.Path}: ids", ids, model.VocabularySize);
        TokenIds.RequireKnown($"{File.Path}: prompt", prompt, model.VocabularySize);
        if (WantsHeads && model.Medusa is null) throw ToolException.Input($"{_folder}: medusa_logits are wanted, but there are no Medusa heads");

        List<CaseOutput> outputs = [];
        if (WantsLogits || WantsHeads) FeedIds(model, ids, positions, options, tolerance, outputs, cancellation);
        if (WantsGreedy)
        {
            int[] text = Continue(model, prompt, greedyTokens, options.Stepwise, cancellation);
            CaseTensor greedy = CaseTensor.Of("greedy", Array.ConvertAll(text, token => (long)token), text.Length);
            outputs.Add(new CaseOutput(greedy, File.Find("greedy"), tolerance, SafePrefix(text.Length)));
        }

        return outputs;
    }

    private void FeedIds(CausalModel model, int[] ids, int[] positions, CaseOptions options, double tolerance, List<CaseOutput> outputs, CancellationToken cancellation)
    {
        int width = model.VocabularySize, heads = WantsHeads ? model.Medusa!.Count : 0;
        float[] logits = WantsLogits ? ModelPass.New(ids.Length, width) : [], guesses = ModelPass.New((long)heads * positions.Length, width);
        ModelPass.Run(model, ids, options.Stepwise, (first, count, output) =>
        {
            if (WantsLogits) model.Backend.Read(output.Logits, logits.AsSpan(first * width, count * width));
            if (heads > 0) ReadHeads(model, output.Hidden, first, positions, guesses);
        }, options.Progress, cancellation);
        if (WantsLogits) outputs.Add(new CaseOutput(CaseTensor.Of("logits", logits, ids.Length, width), File.Find("logits"), tolerance));
        if (heads > 0) outputs.Add(new CaseOutput(CaseTensor.Of("medusa_logits", guesses, heads, positions.Length, width), File.Find("medusa_logits"), tolerance));
    }

    /// <summary>The heads' logits at the wanted positions among some rows; the heads give <c>[row, head]</c>, the case wants <c>[head, position]</c>.</summary>
    private static void ReadHeads(CausalModel model, DeviceTensor hidden, int first, int[] positions, float[] guesses)
    {
        int width = model.VocabularySize, heads = model.Medusa!.Count;
        int[] places = [.. Enumerable.Range(0, positions.Length).Where(place => positions[place] >= first && positions[place] < first + hidden.Rows)];
        if (places.Length == 0) return;
        using DeviceTensor rows = model.Backend.Upload<int>(Array.ConvertAll(places, place => positions[place] - first), places.Length);
        using DeviceTensor wanted = model.Backend.Allocate(ElementType.Float32, places.Length, hidden.RowLength);
        model.Backend.Embedding(hidden, rows, wanted);      // gathers rows
        float[] numbers = model.Backend.Download<float>(model.Medusa.Forward(wanted));
        for (int i = 0; i < places.Length; i++)
            for (int head = 0; head < heads; head++)
                numbers.AsSpan((i * heads + head) * width, width).CopyTo(guesses.AsSpan((head * positions.Length + places[i]) * width));
    }

    /// <summary>The most probable continuation, through the same decoding that writes texts; stop tokens do not end it, as in the recording.</summary>
    private int[] Continue(CausalModel model, int[] prompt, int count, bool stepwise, CancellationToken cancellation)
    {
        var shape = new DecodingBatchOptions { Slots = 1, Capacity = (int)Math.Min(model.MaxPositions, (long)prompt.Length + count) };
        using var batch = new DecodingBatch(model, stepwise ? shape with { PrefillChunk = 1 } : shape);
        using Sequence sequence = batch.Add(prompt, new GenerationOptions { MaxTokens = count, StopTokens = [] });
        while (batch.Step(cancellation)) { }
        if (sequence.Error is { } error) throw error;
        if (sequence.Generated.Length < count)
            throw new OutOfCapacityException($"{_folder}: greedy_tokens: expected at most {sequence.Generated.Length} after a prompt of {prompt.Length}, as many as the model has positions for, got {count}");
        return sequence.Generated.ToArray();
    }

    private int[] Ids(string name)
    {
        int[] ids = File.Require(name, -1).ToInt32();
        return ids.Length > 0 ? ids : throw ToolException.Input($"{File.Path}: {name}: expected at least one token, got none");
    }

    private int[] Positions(int tokens)
    {
        int[] positions = File.Find("medusa_positions")?.ToInt32() ?? [.. Enumerable.Range(0, tokens)];
        foreach (int position in positions)
            if ((uint)position >= (uint)tokens) throw ToolException.Input($"{File.Path}: medusa_positions: expected 0 to {tokens - 1}, got {position}");
        return positions;
    }

    private int GreedyTokens()
    {
        int count = File.Whole("greedy_tokens", File.Find("greedy") is { Shape: [int recorded] } ? recorded : 0);
        return count > 0 ? count : throw ToolException.Input($"{File.Path}: greedy_tokens: expected 1 or more, got {count}");
    }

    /// <summary>Tokens before the first that rounding may decide; null: all.</summary>
    private int? SafePrefix(int count)
    {
        int at = Array.FindIndex(File.Find("greedy_margin")?.ToFloat32() ?? [], margin => margin < Measure.LeastMargin);
        return at >= 0 && at < count ? at : null;
    }
}
