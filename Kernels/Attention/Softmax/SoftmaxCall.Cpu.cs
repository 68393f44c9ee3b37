using static Treeline.Kernels.AttentionWork;

namespace Treeline.Kernels;

/// <summary>What the kernels of one call to softmax attention share.</summary>
internal readonly unsafe struct SoftmaxCall
{
    public readonly AttentionSpec Spec;
    public readonly SoftmaxLayer Layer;
    public readonly Step Step;
    public readonly FloatRows Query;
    public readonly FloatRows Key;
    public readonly FloatRows Value;
    public readonly float Scale;

    /// <summary>Query heads of a key/value head.</summary>
    public readonly int Heads;

    /// <summary>Tokens whose queries are computed together: a part of the work.</summary>
    public readonly int ChunkTokens;

    /// <summary>Distance of the rows of queries.</summary>
    public readonly int QueryStride;

    /// <summary>Distance of the rows of scores against a tree's nodes.</summary>
    public readonly int NodeStride;

    /// <summary>Parts of the work: chunks of queries of one entry and key/value head.</summary>
    public readonly int Parts;

    /// <summary>Floats that a worker needs.</summary>
    public readonly nint ScratchFloats;

    /// <summary>Multiply-adds, about.</summary>
    public readonly long Work;

    private readonly float* _output;
    private readonly nint _outputStride;

    public SoftmaxCall(AttentionLayer layer, SoftmaxLayer state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        Spec = layer.Spec;
        Layer = state;
        Step = step;
        Query = new FloatRows(inputs.Query);
        Key = new FloatRows(inputs.Key);
        Value = new FloatRows(inputs.Value);
        Scale = Spec.ScoreScale ?? (float)(1 / Math.Sqrt(Spec.HeadDim));
        Heads = Spec.HeadsPerKeyValue;
        ChunkTokens = Math.Max(1, AttentionWork.Rows / Heads);
        QueryStride = CpuLayer.Padded(Spec.HeadDim);
        _output = output.Pointer<float>();
        _outputStride = (nint)output.RowStride;
        for (int i = 0; i < step.Entries; i++)
        {
            StepEntry entry = step[i];
            Parts += Chunks(entry) * Spec.KeyValueHeads;
            Work += (long)entry.Count * (state.Owner.Length(entry.Slot) + entry.Tree.Levels) * Spec.QueryHeads * (Spec.HeadDim + Spec.ValueDim);
            if (!entry.Moves) NodeStride = Math.Max(NodeStride, CpuLayer.Padded(entry.Count));
        }

        ScratchFloats = (nint)new SoftmaxScratch(this, null).End / sizeof(float);
    }

    public float* Output(int token, int queryHead) => _output + token * _outputStride + (nint)queryHead * Spec.ValueDim;

    /// <summary>Which entry, key/value head and first token a part is.</summary>
    public StepEntry Find(int part, out int head, out int first)
    {
        for (int i = 0; ; i++)
        {
            StepEntry entry = Step[i];
            int chunks = Chunks(entry), parts = chunks * Spec.KeyValueHeads;
            if (part >= parts)
            {
                part -= parts;
                continue;
            }

            head = part / chunks;
            first = part % chunks * ChunkTokens;
            return entry;
        }
    }

    private int Chunks(in StepEntry entry) => (entry.Count + ChunkTokens - 1) / ChunkTokens;
}

/// <summary>A worker's scratch memory, cut for one call. Rows lie token by token, the heads of a token beside each other.</summary>
internal readonly unsafe struct SoftmaxScratch
{
    /// <summary>Queries <c>[rows, QueryStride]</c>.</summary>
    public readonly float* Query;

    /// <summary>A block's scores, then their exponentials, by position <c>[rows, 64]</c>.</summary>
    public readonly float* Scores;

    /// <summary>Scores against a tree's nodes <c>[rows, NodeStride]</c>.</summary>
    public readonly float* NodeScores;

    /// <summary>The sums of the part of the keys at hand.</summary>
    public readonly SoftmaxSums Part;

    /// <summary>The sums of the parts before it.</summary>
    public readonly SoftmaxSums Merged;

    /// <summary>Nodes of a path inside one block <c>[64]</c>.</summary>
    public readonly int* Path;

    /// <summary>Where the memory ends.</summary>
    public readonly float* End;

    public SoftmaxScratch(in SoftmaxCall call, float* memory)
    {
        int rows = call.ChunkTokens * call.Heads;
        Query = Cut(ref memory, (nint)rows * call.QueryStride);
        Scores = Cut(ref memory, (nint)rows * SoftmaxLayer.Page);
        NodeScores = Cut(ref memory, (nint)rows * call.NodeStride);
        Part = new SoftmaxSums(Cut(ref memory, rows), Cut(ref memory, rows), Cut(ref memory, (nint)rows * call.Layer.ValueStride), call.Layer.ValueStride);
        Merged = new SoftmaxSums(Cut(ref memory, rows), Cut(ref memory, rows), Cut(ref memory, (nint)rows * call.Layer.ValueStride), call.Layer.ValueStride);
        Path = (int*)Cut(ref memory, SoftmaxLayer.Page);
        End = memory;
    }
}

/// <summary>Each row's greatest score m, Σ exp(s - m), and Σ exp(s - m) v.</summary>
internal readonly unsafe struct SoftmaxSums(float* largest, float* weights, float* values, int stride)
{
    public readonly float* Largest = largest;
    public readonly float* Weights = weights;

    /// <summary><c>[rows, stride]</c>.</summary>
    public readonly float* Values = values;

    public float* ValuesOf(int row) => Values + (nint)row * stride;
}
