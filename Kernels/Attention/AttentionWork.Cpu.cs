namespace Treeline.Kernels;

/// <summary>When waking the other threads pays.</summary>
internal static class AttentionWork
{
    /// <summary>Multiply-adds below which one thread is done before another has started.</summary>
    public const long Least = 100_000;

    /// <summary>Rows of queries (tokens times the query heads of one key/value head) that are computed together: enough to share what they read, few enough to stay in a core's cache.</summary>
    public const int Rows = 32;
}
