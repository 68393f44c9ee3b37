using Treeline.Kernels;

namespace Treeline.Tests.Harness;

/// <summary>Query, key and value rows of some tokens.</summary>
internal sealed class Tokens(AttentionSpec spec, int count, float[] query, float[] key, float[] value)
{
    public int Count => count;

    public float[] Query => query;

    public float[] Key => key;

    public float[] Value => value;

    private int QueryRow => spec.QueryHeads * spec.HeadDim;

    private int KeyRow => spec.KeyValueHeads * spec.HeadDim;

    private int ValueRow => spec.KeyValueHeads * spec.ValueDim;

    public static Tokens Random(Random random, AttentionSpec spec, int count) => new(spec, count,
        random.Floats(count * spec.QueryHeads * spec.HeadDim), random.Floats(count * spec.KeyValueHeads * spec.HeadDim), random.Floats(count * spec.KeyValueHeads * spec.ValueDim));

    public Tokens Range(int start, int end) => new(spec, end - start,
        query[(start * QueryRow)..(end * QueryRow)], key[(start * KeyRow)..(end * KeyRow)], value[(start * ValueRow)..(end * ValueRow)]);

    /// <summary>Chosen tokens in the order given.</summary>
    public Tokens At(ReadOnlySpan<int> indices)
    {
        Tokens all = Range(0, 0);
        foreach (int index in indices) all = all.Then(Range(index, index + 1));
        return all;
    }

    public Tokens Then(Tokens next) => new(spec, count + next.Count, [.. query, .. next.Query], [.. key, .. next.Key], [.. value, .. next.Value]);

    /// <summary>A copy in which one token's numbers are all the same.</summary>
    public Tokens With(int token, float number)
    {
        Tokens copy = Range(0, count);
        copy.Query.AsSpan(token * QueryRow, QueryRow).Fill(number);
        copy.Key.AsSpan(token * KeyRow, KeyRow).Fill(number);
        copy.Value.AsSpan(token * ValueRow, ValueRow).Fill(number);
        return copy;
    }

    /// <summary>One token's rows, widened.</summary>
    public (double[] Query, double[] Key, double[] Value) Row(int token) => (
        Close.Widen(query.AsSpan(token * QueryRow, QueryRow)),
        Close.Widen(key.AsSpan(token * KeyRow, KeyRow)),
        Close.Widen(value.AsSpan(token * ValueRow, ValueRow)));
}
