using Treeline.Kernels;

namespace Treeline.Tests.Managed.Models;

/// <summary>A loaded model with a state, fed with token ids.</summary>
internal sealed class ModelRig : IDisposable
{
    public ModelRig(CausalModel model, int slots = 1, int capacity = 600)
    {
        Model = model;
        State = model.CreateState(slots, capacity);
    }

    public CausalModel Model { get; }

    public AttentionState State { get; }

    /// <summary>The last step fed.</summary>
    public Step Step { get; } = new();

    /// <summary>Logits of every token of a path that the slot moves past, <c>[tokens, vocabulary]</c>.</summary>
    public float[] Advance(int slot, params ReadOnlySpan<int> ids)
    {
        Step.Clear();
        Step.Advance(slot, ids.Length, LogitRows.All);
        return Model.Backend.Download<float>(Model.Forward(State, Step, ids).Logits);
    }

    /// <summary>The same in pieces.</summary>
    public float[] Advance(int slot, ReadOnlySpan<int> ids, ReadOnlySpan<int> pieces)
    {
        var all = new List<float>();
        foreach (int piece in pieces)
        {
            all.AddRange(Advance(slot, ids[..piece]));
            ids = ids[piece..];
        }

        return [.. all];
    }

    /// <summary>Logits of every node of a tree; the slot stays.</summary>
    public float[] Verify(int slot, TokenTree tree, ReadOnlySpan<int> ids)
    {
        Step.Clear();
        Step.Verify(slot, tree);
        return Model.Backend.Download<float>(Model.Forward(State, Step, ids).Logits);
    }

    public void Dispose()
    {
        State.Dispose();
        Model.Dispose();
    }
}
