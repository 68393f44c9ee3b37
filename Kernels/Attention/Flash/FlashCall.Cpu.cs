namespace Treeline.Kernels;

/// <summary>What the kernels of one call to grouped attention share, and how each cuts its scratch memory.</summary>
internal readonly unsafe struct FlashCall
{
    public readonly AttentionSpec Spec;
    public readonly FlashLayer Layer;
    public readonly Step Step;
    public readonly FloatRows Query;
    public readonly FloatRows Key;
    public readonly FloatRows Value;
    public readonly FloatRows Taps;
    public readonly float Alpha;

    /// <summary>Query heads of a key/value head.</summary>
    public readonly int Heads;

    /// <summary>Tokens whose queries are computed together.</summary>
    public readonly int ChunkTokens;

    /// <summary>Distance of the rows of queries.</summary>
    public readonly int QueryStride;

    /// <summary>Distance of the rows of scores.</summary>
    public readonly int ScoreStride;

    /// <summary>Nodes of the largest tree.</summary>
    public readonly int Nodes;

    /// <summary>Nodes of the longest path that is ever listed: a group's part of it, or the convolution's.</summary>
    public readonly int Longest;

    /// <summary>Group boundaries with rows past them, on a path of a tree: the states that are built on the way down.</summary>
    public readonly int Crossings;

    /// <summary>Floats that a worker needs.</summary>
    public readonly nint ScratchFloats;

    /// <summary>Multiply-adds, about.</summary>
    public readonly long Work;

    private readonly float* _output;
    private readonly nint _outputStride;

    public FlashCall(AttentionLayer layer, FlashLayer state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        Spec = layer.Spec;
        Layer = state;
        Step = step;
        Query = new FloatRows(inputs.Query);
        Key = new FloatRows(inputs.Key);
        Value = new FloatRows(inputs.Value);
        Alpha = 1;
        if (Spec.ConvTaps > 0) Taps = new FloatRows(layer["taps"]);
        if (Spec.HasAlpha)
        {
            var alpha = new FloatRows(layer["alpha"]);
            float value;
            state.Kernels.Widen(alpha.Type, alpha.At(0, 0), 1, &value);
            Alpha = value;
        }

        _output = output.Pointer<float>();
        _outputStride = (nint)output.RowStride;
        Heads = Spec.HeadsPerKeyValue;
        ChunkTokens = Math.Max(1, AttentionWork.Rows / Heads);
        QueryStride = CpuLayer.Padded(Spec.HeadDim);

        int levels = 0;
        for (int i = 0; i < step.Entries; i++)
        {
            StepEntry entry = step[i];
            if (entry.Moves) continue;
            Nodes = Math.Max(Nodes, entry.Count);
            levels = Math.Max(levels, entry.Tree.Levels);
            if (Spec.Global) Crossings = Math.Max(Crossings, (state.Owner.Length(entry.Slot) % Spec.GroupSize + entry.Tree.Levels - 1) / Spec.GroupSize);
        }

        ScoreStride = Math.Max(CpuLayer.TransposedStride(Spec.GroupSize), CpuLayer.TransposedStride(Nodes));
        Longest = CpuLayer.Padded(Math.Min(levels, Math.Max(Spec.GroupSize, Spec.ConvTaps)));
        ScratchFloats = (nint)new FlashScratch(this, null).End / sizeof(float);
        long perToken = (long)Spec.HeadDim * (Spec.Global ? Spec.ValueDim : 1) + (long)Spec.GroupSize * (Spec.HeadDim + Spec.ValueDim) / 2 + (long)Spec.ConvTaps * Spec.ValueDim;
        Work = perToken * step.Tokens * Spec.QueryHeads;
    }

    public float* Output(int token, int queryHead) => _output + token * _outputStride + (nint)queryHead * Spec.ValueDim;
}
