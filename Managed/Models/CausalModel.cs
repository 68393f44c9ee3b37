using Treeline.Kernels;

namespace Treeline;

/// <summary>What one forward pass leaves; valid until the model's next one.</summary>
/// <param name="Logits">Next-token logits, <c>[step.LogitCount, vocabulary]</c> float32.</param>
/// <param name="Hidden">The last hidden states of the same rows, after the final norm, <c>[step.LogitCount, hidden]</c> float32: what Medusa heads read.</param>
public readonly record struct ForwardOutput(DeviceTensor Logits, DeviceTensor Hidden);

/// <summary>A decoder-only language model on a backend: feeds steps, gives logits.</summary>
/// <remarks>Several sequences go through one forward pass; a model holds weights and scratch, an <see cref="AttentionState"/> the sequences' past.</remarks>
public abstract class CausalModel : IDisposable
{
    /// <summary>The checkpoint's configuration.</summary>
    public abstract ModelConfig Config { get; }

    /// <summary>Whose kernels run it.</summary>
    public abstract KernelBackend Backend { get; }

    /// <summary>The checkpoint's tokenizer, null where it has none.</summary>
    public abstract TextTokenizer? Tokenizer { get; }

    /// <summary>The checkpoint's Medusa heads, null where it has none.</summary>
    public abstract MedusaHeads? Medusa { get; }

    /// <summary>One spec a layer.</summary>
    public abstract IReadOnlyList<AttentionSpec> AttentionSpecs { get; }

    /// <summary>Number of tokens in the vocabulary: columns of the logits.</summary>
    public abstract int VocabularySize { get; }

    /// <summary>Positions that the model can be fed: its table of positions, or a softmax model's configured limit; <see cref="int.MaxValue"/> where nothing limits it (linearized models, and dynamic rotary scaling, which stretches as a text grows).</summary>
    public abstract int MaxPositions { get; }

    /// <summary>Tokens that end a text (<c>generation_config.json</c>, else <c>config.json</c>).</summary>
    public abstract IReadOnlyCollection<int> StopTokens { get; }

    /// <summary>Names of the checkpoint's tensors that the model does not know; known ones that it has no use for (stored masks, rotary frequencies) are not listed.</summary>
    public IReadOnlyList<string> UnusedTensors { get; internal set; } = [];

    /// <summary>Number of forward passes so far.</summary>
    public long Forwards { get; private set; }

    /// <summary>Sees the residual stream after each layer of a forward pass, <c>[step.Tokens, hidden]</c>, valid during the call; null: nobody does.</summary>
    internal Action<int, DeviceTensor>? AfterLayer { get; set; }

    /// <summary>Loads a model: <c>config.json</c>, weights (safetensors or PyTorch, single or sharded), tokenizer and Medusa heads where the folder has them.</summary>
    /// <param name="path">The checkpoint's folder.</param>
    /// <param name="backend">Whose kernels run it; must outlive the model.</param>
    /// <param name="options">Strictness, form of the weights, logging; null: the defaults.</param>
    /// <exception cref="CheckpointException">A file or tensor is missing, damaged, or of another shape than the configuration says; the message names file and tensor. Nothing stays allocated.</exception>
    /// <exception cref="NotSupportedException">The backend does not compute the model's attention; the message says why.</exception>
    public static CausalModel Load(string path, KernelBackend backend, LoadOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(backend);
        return ModelLoader.Load(path, backend, options ?? new LoadOptions());
    }

    /// <summary>Creates the past of some sequences.</summary>
    /// <param name="slots">Number of sequences.</param>
    /// <param name="capacity">Most positions of a sequence where the state grows (softmax).</param>
    public AttentionState CreateState(int slots, int capacity) => Backend.CreateState(AttentionSpecs, slots, capacity);

    /// <summary>Feeds a step: begins it, runs all layers, completes it. Verified entries may be committed afterwards.</summary>
    /// <param name="state">The sequences' past, made by <see cref="CreateState"/>.</param>
    /// <param name="step">Entries, not begun.</param>
    /// <param name="tokens">The step's packed tokens, <c>[step.Tokens]</c>.</param>
    /// <exception cref="ArgumentException">The number of tokens is not the step's, a token is outside the vocabulary, or the state was made for another model; nothing has been touched.</exception>
    /// <exception cref="OutOfCapacityException">A position would pass <see cref="MaxPositions"/> or the state's capacity; nothing has moved.</exception>
    public ForwardOutput Forward(AttentionState state, Step step, ReadOnlySpan<int> tokens)
    {
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(step);
        if (tokens.Length != step.Tokens) throw new ArgumentException($"tokens: expected {step.Tokens} like the step, got {tokens.Length}", nameof(tokens));
        foreach (int token in tokens)
            if ((uint)token >= (uint)VocabularySize) throw new ArgumentException($"tokens: expected 0 to {VocabularySize - 1}, got {token}", nameof(tokens));
        RequireState(state);
        for (int i = 0; i < step.Entries; i++)
        {
            long reach = (long)state.Length(step[i].Slot) + step[i].Tree.Levels;
            if (reach > MaxPositions) throw new OutOfCapacityException($"the model takes at most {MaxPositions} positions; slot {step[i].Slot} would reach {reach}");
        }

        Forwards++;
        return ForwardCore(state, step, tokens);
    }

    /// <summary>Gives the weights back; harmless when repeated.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Begins the step, runs all layers, completes it; the arguments have been checked.</summary>
    /// <param name="state">The sequences' past.</param>
    /// <param name="step">Entries, not begun.</param>
    /// <param name="tokens">The packed tokens.</param>
    protected abstract ForwardOutput ForwardCore(AttentionState state, Step step, ReadOnlySpan<int> tokens);

    /// <summary>Gives the weights back.</summary>
    /// <param name="disposing">Always true; there are no finalizers here.</param>
    protected abstract void Dispose(bool disposing);

    private void RequireState(AttentionState state)
    {
        if (!ReferenceEquals(state.Backend, Backend)) throw new ArgumentException($"state: expected one of this {Backend.Name}, got one of {(state.Backend.Name == Backend.Name ? "another " : "")}{state.Backend.Name}", nameof(state));
        if (state.Layers != AttentionSpecs.Count) throw new ArgumentException($"state: expected {AttentionSpecs.Count} layers like the model, got {state.Layers}", nameof(state));
        for (int i = 0; i < state.Layers; i++)
            if (state.Specs[i] != AttentionSpecs[i]) throw new ArgumentException($"state: layer {i}: expected {AttentionSpecs[i]}, got {state.Specs[i]}", nameof(state));
    }
}
