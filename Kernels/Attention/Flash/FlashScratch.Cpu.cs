using static Treeline.Kernels.AttentionWork;

namespace Treeline.Kernels;

/// <summary>A worker's scratch memory, cut for one call. Rows of queries lie token by token, the heads of a token beside each other.</summary>
internal readonly unsafe struct FlashScratch
{
    /// <summary>q̂ <c>[rows, QueryStride]</c>.</summary>
    public readonly float* Query;

    /// <summary>Scores, then their weights <c>[rows, ScoreStride]</c>.</summary>
    public readonly float* Scores;

    /// <summary>The three sums <c>[rows, ValueStride]</c>.</summary>
    public readonly float* Local;

    /// <inheritdoc cref="Local"/>
    public readonly float* Global;

    /// <inheritdoc cref="Local"/>
    public readonly float* Conv;

    /// <summary>The heads' filters <c>[heads, ConvTaps]</c>.</summary>
    public readonly float* Taps;

    /// <summary>One key, padded.</summary>
    public readonly float* Row;

    /// <summary>A path's weights for the heads of one node <c>[heads, Longest]</c>.</summary>
    public readonly float* PathWeights;

    /// <summary>Nodes of a path <c>[Longest]</c>.</summary>
    public readonly int* Path;

    /// <summary>Nodes computed together <c>[ChunkTokens]</c>.</summary>
    public readonly int* Chunk;

    /// <summary>1 for nodes that have children <c>[Nodes]</c>.</summary>
    public readonly int* HasChild;

    /// <summary>States behind group boundaries inside a tree <c>[Crossings, headDim, ValueStride]</c>.</summary>
    public readonly float* States;

    /// <summary>k̂ of a path, transposed <c>[headDim, Longest]</c>.</summary>
    public readonly float* PathKeys;

    /// <summary>Where the memory ends.</summary>
    public readonly float* End;

    public FlashScratch(in FlashCall call, float* memory)
    {
        nint rows = (nint)call.ChunkTokens * call.Heads, values = rows * call.Layer.ValueStride;
        Query = Cut(ref memory, rows * call.QueryStride);
        Scores = Cut(ref memory, rows * call.ScoreStride);
        Local = Cut(ref memory, values);
        Global = Cut(ref memory, values);
        Conv = Cut(ref memory, values);
        Taps = Cut(ref memory, (nint)call.Heads * call.Spec.ConvTaps);
        Row = Cut(ref memory, call.QueryStride);
        PathWeights = Cut(ref memory, (nint)call.Heads * call.Longest);
        Path = (int*)Cut(ref memory, call.Longest);
        Chunk = (int*)Cut(ref memory, call.ChunkTokens);
        HasChild = (int*)Cut(ref memory, call.Nodes);
        States = Cut(ref memory, (nint)call.Crossings * call.Spec.HeadDim * call.Layer.ValueStride);
        PathKeys = Cut(ref memory, call.Crossings > 0 ? (nint)call.Spec.HeadDim * call.Longest : 0);
        End = memory;
    }
}
