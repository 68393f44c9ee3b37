using System.Runtime.CompilerServices;

namespace Treeline.Kernels;

/// <summary>Where the rows of a product's right factor lie.</summary>
internal unsafe interface IRows
{
    /// <summary>Row number of the l-th term.</summary>
    nint this[int l] { get; }
}

/// <summary>Row l is row l.</summary>
internal readonly struct RowsInOrder : IRows
{
    public nint this[int l] => l;
}

/// <summary>Row l is listed: the nodes of a path in a tree.</summary>
internal readonly unsafe struct ListedRows(int* rows) : IRows
{
    public nint this[int l] => rows[l];
}

/// <summary>
/// The sum that all of attention is made of: <c>c[i, j] = (c[i, j] or +0) + Σ_l a[i, l] · b[row l, j]</c>,
/// each element one multiply-add chain in the order of l whatever the shape; lanes run over j.
/// So a chain may be cut anywhere and go on from its stored sum.
/// </summary>
internal sealed unsafe partial class CpuKernels<S, V>
{
    /// <param name="a">Left factor.</param>
    /// <param name="aRow">Distance of its rows.</param>
    /// <param name="b">Right factor; whole groups of 16 columns are read.</param>
    /// <param name="bRow">Distance of its rows; negative where they are walked backwards.</param>
    /// <param name="rows">Which of its rows each term takes.</param>
    /// <param name="c">The sums; whole groups of 16 columns are written.</param>
    /// <param name="cRow">Distance of their rows.</param>
    /// <param name="m">Rows of a and c.</param>
    /// <param name="n">Columns of b and c, a multiple of 16.</param>
    /// <param name="k">Terms of each sum.</param>
    /// <param name="add">True: the chains go on from what c holds; false: they start at +0.</param>
    private static void Product<TRows>(float* a, nint aRow, float* b, nint bRow, TRows rows, float* c, nint cRow, int m, int n, int k, bool add)
        where TRows : struct, IRows
    {
        int i = 0;
        for (; i + 4 <= m; i += 4)
        {
            int j = 0;
            for (; j + 2 * S.Width <= n; j += 2 * S.Width) Tile4x2(a + i * aRow, aRow, b + j, bRow, rows, c + i * cRow + j, cRow, k, add);
            for (; j < n; j += S.Width) Tile4x1(a + i * aRow, aRow, b + j, bRow, rows, c + i * cRow + j, cRow, k, add);
        }

        for (; i < m; i++)
        {
            int j = 0;
            for (; j + 4 * S.Width <= n; j += 4 * S.Width) Tile1x4(a + i * aRow, b + j, bRow, rows, c + i * cRow + j, k, add);
            for (; j < n; j += S.Width) Tile1x1(a + i * aRow, b + j, bRow, rows, c + i * cRow + j, k, add);
        }
    }

    private static void Tile4x2<TRows>(float* a, nint aRow, float* b, nint bRow, TRows rows, float* c, nint cRow, int k, bool add)
        where TRows : struct, IRows
    {
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
        float* c1 = c + cRow, c2 = c1 + cRow, c3 = c2 + cRow;
        V c00 = Start(c, add), c01 = Start(c + S.Width, add), c10 = Start(c1, add), c11 = Start(c1 + S.Width, add);
        V c20 = Start(c2, add), c21 = Start(c2 + S.Width, add), c30 = Start(c3, add), c31 = Start(c3 + S.Width, add);
        for (int l = 0; l < k; l++)
        {
            float* row = b + rows[l] * bRow;
            V b0 = S.Load(row), b1 = S.Load(row + S.Width);
            V x = S.Broadcast(a[l]);
            c00 = S.MultiplyAdd(x, b0, c00);
            c01 = S.MultiplyAdd(x, b1, c01);
            x = S.Broadcast(a1[l]);
            c10 = S.MultiplyAdd(x, b0, c10);
            c11 = S.MultiplyAdd(x, b1, c11);
            x = S.Broadcast(a2[l]);
            c20 = S.MultiplyAdd(x, b0, c20);
            c21 = S.MultiplyAdd(x, b1, c21);
            x = S.Broadcast(a3[l]);
            c30 = S.MultiplyAdd(x, b0, c30);
            c31 = S.MultiplyAdd(x, b1, c31);
        }

        S.Store(c, c00);
        S.Store(c + S.Width, c01);
        S.Store(c1, c10);
        S.Store(c1 + S.Width, c11);
        S.Store(c2, c20);
        S.Store(c2 + S.Width, c21);
        S.Store(c3, c30);
        S.Store(c3 + S.Width, c31);
    }

    private static void Tile4x1<TRows>(float* a, nint aRow, float* b, nint bRow, TRows rows, float* c, nint cRow, int k, bool add)
        where TRows : struct, IRows
    {
        float* a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
        V c0 = Start(c, add), c1 = Start(c + cRow, add), c2 = Start(c + 2 * cRow, add), c3 = Start(c + 3 * cRow, add);
        for (int l = 0; l < k; l++)
        {
            V row = S.Load(b + rows[l] * bRow);
            c0 = S.MultiplyAdd(S.Broadcast(a[l]), row, c0);
            c1 = S.MultiplyAdd(S.Broadcast(a1[l]), row, c1);
            c2 = S.MultiplyAdd(S.Broadcast(a2[l]), row, c2);
            c3 = S.MultiplyAdd(S.Broadcast(a3[l]), row, c3);
        }

        S.Store(c, c0);
        S.Store(c + cRow, c1);
        S.Store(c + 2 * cRow, c2);
        S.Store(c + 3 * cRow, c3);
    }

    private static void Tile1x4<TRows>(float* a, float* b, nint bRow, TRows rows, float* c, int k, bool add)
        where TRows : struct, IRows
    {
        V c0 = Start(c, add), c1 = Start(c + S.Width, add), c2 = Start(c + 2 * S.Width, add), c3 = Start(c + 3 * S.Width, add);
        for (int l = 0; l < k; l++)
        {
            float* row = b + rows[l] * bRow;
            V x = S.Broadcast(a[l]);
            c0 = S.MultiplyAdd(x, S.Load(row), c0);
            c1 = S.MultiplyAdd(x, S.Load(row + S.Width), c1);
            c2 = S.MultiplyAdd(x, S.Load(row + 2 * S.Width), c2);
            c3 = S.MultiplyAdd(x, S.Load(row + 3 * S.Width), c3);
        }

        S.Store(c, c0);
        S.Store(c + S.Width, c1);
        S.Store(c + 2 * S.Width, c2);
        S.Store(c + 3 * S.Width, c3);
    }

    private static void Tile1x1<TRows>(float* a, float* b, nint bRow, TRows rows, float* c, int k, bool add)
        where TRows : struct, IRows
    {
        V sum = Start(c, add);
        for (int l = 0; l < k; l++) sum = S.MultiplyAdd(S.Broadcast(a[l]), S.Load(b + rows[l] * bRow), sum);
        S.Store(c, sum);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static V Start(float* c, bool add) => add ? S.Load(c) : S.Broadcast(0);
}
