using Treeline.Kernels;

namespace Treeline.Cli;

/// <summary>One spec of each kind of attention.</summary>
internal static class AttentionKinds
{
    /// <param name="queryHeads">Number of query heads.</param>
    /// <param name="keyValueHeads">Number of key/value heads.</param>
    /// <param name="headDim">Channels of a head.</param>
    /// <param name="groupSize">Tokens in a group, where there are groups.</param>
    public static IReadOnlyList<(string Name, AttentionSpec Spec)> Of(int queryHeads, int keyValueHeads, int headDim, int groupSize)
    {
        AttentionSpec both = AttentionSpec.LocalGlobal(queryHeads, keyValueHeads, headDim, groupSize);
        AttentionSpec augmented = AttentionSpec.Augmented(queryHeads, keyValueHeads, headDim, groupSize);
        return
        [
            ("softmax", AttentionSpec.Softmax(queryHeads, keyValueHeads, headDim)),
            ("FLASH-Local", AttentionSpec.FlashLocal(queryHeads, keyValueHeads, headDim, groupSize)),
            ("FLASH-Global", AttentionSpec.FlashGlobal(queryHeads, keyValueHeads, headDim, groupSize)),
            ("local + α·global", both),
            ("augmented (+ convolution)", augmented),
            ("global term normalised", both with { Norm = OutputNorm.Global }),
            ("sum normalised", both with { Norm = OutputNorm.Together }),
            ("linear-angular (Castling)", augmented with { Norm = OutputNorm.Castling }),
            ("YOSO local, augmented", augmented with { Local = LocalKind.Yoso8 }),
        ];
    }
}
