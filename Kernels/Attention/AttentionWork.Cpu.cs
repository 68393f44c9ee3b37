namespace Treeline.Kernels;

/// <summary>How attention's work is cut.</summary>
internal static unsafe class AttentionWork
{
    /// <summary>Rows of queries (tokens times the query heads of one key/value head) that are computed together: enough to share what they read, few enough to stay in a core's cache.</summary>
    public const int Rows = 32;

    /// <summary>Multiply-adds below which one thread is done before another has started.</summary>
    private const long LeastForThreads = 100_000;

    /// <summary>Runs a job's parts on all threads, or on the caller's alone where that is sooner.</summary>
    public static void Run<TJob>(CpuThreads threads, int parts, long work, ref TJob job) where TJob : struct, IJob
    {
        if (work >= LeastForThreads) threads.For(parts, ref job);
        else
            for (int part = 0; part < parts; part++) job.Run(part, 0);
    }

    /// <summary>Takes a piece of scratch memory that begins on a cache line.</summary>
    public static float* Cut(ref float* memory, nint floats)
    {
        float* piece = memory;
        memory += (floats + 15) & ~15;
        return piece;
    }

    /// <summary>True where one of the 16 nodes from <paramref name="column"/> on, a multiple of 16, lies on a node's path.</summary>
    public static bool IsAnyOnPath(TokenTree tree, int node, int column) =>
        tree.IsPath ? column <= node : (tree.AncestorBits(node)[column >> 6] >> (column & 63) & 0xFFFF) != 0;
}
