using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>Trees to verify.</summary>
internal static class Trees
{
    /// <summary>A tree of a drafter's shape: every node has up to four children, the first ones more than the last.</summary>
    public static TokenTree Of(int nodes) => TokenTree.FromParents([.. Enumerable.Range(0, nodes).Select(i => i == 0 ? -1 : (i - 1) / 4)]);
}
