using global::ILGPU;

namespace Treeline.Kernels.ILGPU;

/// <summary>What a thread owns of a product's result: one column, a few rows, their sums in registers.</summary>
/// <remarks>
/// A product takes its left side from a tile in shared memory, <c>[step][row]</c>, that the whole group reads, and its right side from a column of its own:
/// each number loaded serves as many multiply-adds as there are rows. Each row is one chain of them, whatever the number of rows.
/// </remarks>
internal interface IColumn<TSelf> where TSelf : unmanaged, IColumn<TSelf>
{
    /// <summary>Rows.</summary>
    static abstract int Rows { get; }

    /// <summary>sums[r] + tile[at + r] · x.</summary>
    static abstract TSelf Plus(TSelf sums, ArrayView<float> tile, int at, float x);

    /// <summary>x[r] + y.</summary>
    static abstract TSelf Sum(TSelf x, float y);

    /// <summary>to[at + r · stride] = x[r] for the rows whose bit is set.</summary>
    static abstract void Store(TSelf x, ArrayView<float> to, long at, long stride, uint rows);

    /// <summary>Each number through a function.</summary>
    static abstract TSelf Map<TFunction>(TSelf x, int kind) where TFunction : struct, IColumnFunction;
}

/// <summary>A function of one number.</summary>
internal interface IColumnFunction
{
    static abstract float Apply(float x, int kind);
}

internal struct Column1 : IColumn<Column1>
{
    public float R0;

    public static int Rows => 1;

    public static Column1 Plus(Column1 sums, ArrayView<float> tile, int at, float x) => new() { R0 = Fused.MultiplyAdd(tile[at], x, sums.R0) };

    public static Column1 Sum(Column1 x, float y) => new() { R0 = x.R0 + y };

    public static void Store(Column1 x, ArrayView<float> to, long at, long stride, uint rows)
    {
        if ((rows & 1) != 0) to[at] = x.R0;
    }

    public static Column1 Map<TFunction>(Column1 x, int kind) where TFunction : struct, IColumnFunction => new() { R0 = TFunction.Apply(x.R0, kind) };
}

internal struct Column8 : IColumn<Column8>
{
    public float R0, R1, R2, R3, R4, R5, R6, R7;

    public static int Rows => 8;

    public static Column8 Plus(Column8 sums, ArrayView<float> tile, int at, float x) => new()
    {
        R0 = Fused.MultiplyAdd(tile[at], x, sums.R0),
        R1 = Fused.MultiplyAdd(tile[at + 1], x, sums.R1),
        R2 = Fused.MultiplyAdd(tile[at + 2], x, sums.R2),
        R3 = Fused.MultiplyAdd(tile[at + 3], x, sums.R3),
        R4 = Fused.MultiplyAdd(tile[at + 4], x, sums.R4),
        R5 = Fused.MultiplyAdd(tile[at + 5], x, sums.R5),
        R6 = Fused.MultiplyAdd(tile[at + 6], x, sums.R6),
        R7 = Fused.MultiplyAdd(tile[at + 7], x, sums.R7),
    };

    /// <summary>sums[r] + tile[at + r] · x for rows from one up to another, which the caller writes as constants: the others are not even read.</summary>
    public static Column8 PlusRows(Column8 sums, ArrayView<float> tile, long at, float x, int from, int to) => new()
    {
        R0 = from <= 0 && to > 0 ? Fused.MultiplyAdd(tile[at], x, sums.R0) : sums.R0,
        R1 = from <= 1 && to > 1 ? Fused.MultiplyAdd(tile[at + 1], x, sums.R1) : sums.R1,
        R2 = from <= 2 && to > 2 ? Fused.MultiplyAdd(tile[at + 2], x, sums.R2) : sums.R2,
        R3 = from <= 3 && to > 3 ? Fused.MultiplyAdd(tile[at + 3], x, sums.R3) : sums.R3,
        R4 = from <= 4 && to > 4 ? Fused.MultiplyAdd(tile[at + 4], x, sums.R4) : sums.R4,
        R5 = from <= 5 && to > 5 ? Fused.MultiplyAdd(tile[at + 5], x, sums.R5) : sums.R5,
        R6 = from <= 6 && to > 6 ? Fused.MultiplyAdd(tile[at + 6], x, sums.R6) : sums.R6,
        R7 = from <= 7 && to > 7 ? Fused.MultiplyAdd(tile[at + 7], x, sums.R7) : sums.R7,
    };

    /// <summary>scale · x[r] + y[r], rounded once, + z[r].</summary>
    public static Column8 Joined(float scale, Column8 x, Column8 y, Column8 z) => new()
    {
        R0 = Fused.MultiplyAdd(scale, x.R0, y.R0) + z.R0,
        R1 = Fused.MultiplyAdd(scale, x.R1, y.R1) + z.R1,
        R2 = Fused.MultiplyAdd(scale, x.R2, y.R2) + z.R2,
        R3 = Fused.MultiplyAdd(scale, x.R3, y.R3) + z.R3,
        R4 = Fused.MultiplyAdd(scale, x.R4, y.R4) + z.R4,
        R5 = Fused.MultiplyAdd(scale, x.R5, y.R5) + z.R5,
        R6 = Fused.MultiplyAdd(scale, x.R6, y.R6) + z.R6,
        R7 = Fused.MultiplyAdd(scale, x.R7, y.R7) + z.R7,
    };

    public static Column8 Sum(Column8 x, float y) => new()
    {
        R0 = x.R0 + y,
        R1 = x.R1 + y,
        R2 = x.R2 + y,
        R3 = x.R3 + y,
        R4 = x.R4 + y,
        R5 = x.R5 + y,
        R6 = x.R6 + y,
        R7 = x.R7 + y,
    };

    /// <summary>from[at + r · stride] for the first rows, 0 for the others.</summary>
    public static Column8 Load(ArrayView<float> from, long at, long stride, int rows) => new()
    {
        R0 = rows > 0 ? from[at] : 0,
        R1 = rows > 1 ? from[at + stride] : 0,
        R2 = rows > 2 ? from[at + 2 * stride] : 0,
        R3 = rows > 3 ? from[at + 3 * stride] : 0,
        R4 = rows > 4 ? from[at + 4 * stride] : 0,
        R5 = rows > 5 ? from[at + 5 * stride] : 0,
        R6 = rows > 6 ? from[at + 6 * stride] : 0,
        R7 = rows > 7 ? from[at + 7 * stride] : 0,
    };

    public static void Store(Column8 x, ArrayView<float> to, long at, long stride, uint rows)
    {
        if ((rows & 1) != 0) to[at] = x.R0;
        if ((rows & 2) != 0) to[at + stride] = x.R1;
        if ((rows & 4) != 0) to[at + 2 * stride] = x.R2;
        if ((rows & 8) != 0) to[at + 3 * stride] = x.R3;
        if ((rows & 16) != 0) to[at + 4 * stride] = x.R4;
        if ((rows & 32) != 0) to[at + 5 * stride] = x.R5;
        if ((rows & 64) != 0) to[at + 6 * stride] = x.R6;
        if ((rows & 128) != 0) to[at + 7 * stride] = x.R7;
    }

    public static Column8 Map<TFunction>(Column8 x, int kind) where TFunction : struct, IColumnFunction => new()
    {
        R0 = TFunction.Apply(x.R0, kind),
        R1 = TFunction.Apply(x.R1, kind),
        R2 = TFunction.Apply(x.R2, kind),
        R3 = TFunction.Apply(x.R3, kind),
        R4 = TFunction.Apply(x.R4, kind),
        R5 = TFunction.Apply(x.R5, kind),
        R6 = TFunction.Apply(x.R6, kind),
        R7 = TFunction.Apply(x.R7, kind),
    };
}

internal struct Column32 : IColumn<Column32>
{
    public Column8 A, B, C, D;

    public static int Rows => 32;

    public static Column32 Plus(Column32 sums, ArrayView<float> tile, int at, float x) => new()
    {
        A = Column8.Plus(sums.A, tile, at, x),
        B = Column8.Plus(sums.B, tile, at + 8, x),
        C = Column8.Plus(sums.C, tile, at + 16, x),
        D = Column8.Plus(sums.D, tile, at + 24, x),
    };

    public static Column32 Sum(Column32 x, float y) => new() { A = Column8.Sum(x.A, y), B = Column8.Sum(x.B, y), C = Column8.Sum(x.C, y), D = Column8.Sum(x.D, y) };

    /// <summary>from[at + r · stride] for the first rows, 0 for the others.</summary>
    public static Column32 Load(ArrayView<float> from, long at, long stride, int rows) => new()
    {
        A = Column8.Load(from, at, stride, rows),
        B = Column8.Load(from, at + 8 * stride, stride, rows - 8),
        C = Column8.Load(from, at + 16 * stride, stride, rows - 16),
        D = Column8.Load(from, at + 24 * stride, stride, rows - 24),
    };

    public static void Store(Column32 x, ArrayView<float> to, long at, long stride, uint rows)
    {
        Column8.Store(x.A, to, at, stride, rows);
        Column8.Store(x.B, to, at + 8 * stride, stride, rows >> 8);
        Column8.Store(x.C, to, at + 16 * stride, stride, rows >> 16);
        Column8.Store(x.D, to, at + 24 * stride, stride, rows >> 24);
    }

    public static Column32 Map<TFunction>(Column32 x, int kind) where TFunction : struct, IColumnFunction => new()
    {
        A = Column8.Map<TFunction>(x.A, kind),
        B = Column8.Map<TFunction>(x.B, kind),
        C = Column8.Map<TFunction>(x.C, kind),
        D = Column8.Map<TFunction>(x.D, kind),
    };
}

/// <summary>Steps of a product that read one tile.</summary>
internal static class Tile
{
    /// <summary>Steps between two barriers, unrolled: no compiler here does it by itself, and without it the sums leave their registers at every step.</summary>
    public const int Steps = 16;

    /// <summary>Room for the most rows that a column has.</summary>
    public const int Size = Steps * 32;

    /// <summary>A whole tile: sums + Σ_k tile[k] · x[k], x as it is stored.</summary>
    public static TColumn Whole<TColumn, T, TStored>(TColumn sums, ArrayView<float> tile, ArrayView<T> x, long at, long stride, float scale = 1)
        where TColumn : unmanaged, IColumn<TColumn> where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        sums = TColumn.Plus(sums, tile, 0, TStored.Load(x, at, 0, stride, scale));
        sums = TColumn.Plus(sums, tile, TColumn.Rows, TStored.Load(x, at, 1, stride, scale));
        sums = TColumn.Plus(sums, tile, 2 * TColumn.Rows, TStored.Load(x, at, 2, stride, scale));
        sums = TColumn.Plus(sums, tile, 3 * TColumn.Rows, TStored.Load(x, at, 3, stride, scale));
        sums = TColumn.Plus(sums, tile, 4 * TColumn.Rows, TStored.Load(x, at, 4, stride, scale));
        sums = TColumn.Plus(sums, tile, 5 * TColumn.Rows, TStored.Load(x, at, 5, stride, scale));
        sums = TColumn.Plus(sums, tile, 6 * TColumn.Rows, TStored.Load(x, at, 6, stride, scale));
        sums = TColumn.Plus(sums, tile, 7 * TColumn.Rows, TStored.Load(x, at, 7, stride, scale));
        sums = TColumn.Plus(sums, tile, 8 * TColumn.Rows, TStored.Load(x, at, 8, stride, scale));
        sums = TColumn.Plus(sums, tile, 9 * TColumn.Rows, TStored.Load(x, at, 9, stride, scale));
        sums = TColumn.Plus(sums, tile, 10 * TColumn.Rows, TStored.Load(x, at, 10, stride, scale));
        sums = TColumn.Plus(sums, tile, 11 * TColumn.Rows, TStored.Load(x, at, 11, stride, scale));
        sums = TColumn.Plus(sums, tile, 12 * TColumn.Rows, TStored.Load(x, at, 12, stride, scale));
        sums = TColumn.Plus(sums, tile, 13 * TColumn.Rows, TStored.Load(x, at, 13, stride, scale));
        sums = TColumn.Plus(sums, tile, 14 * TColumn.Rows, TStored.Load(x, at, 14, stride, scale));
        return TColumn.Plus(sums, tile, 15 * TColumn.Rows, TStored.Load(x, at, 15, stride, scale));
    }

    /// <summary>Half a tile.</summary>
    public static TColumn Half<TColumn>(TColumn sums, ArrayView<float> tile, ArrayView<float> x, long at, long stride) where TColumn : unmanaged, IColumn<TColumn>
    {
        sums = TColumn.Plus(sums, tile, 0, x[at]);
        sums = TColumn.Plus(sums, tile, TColumn.Rows, x[at + stride]);
        sums = TColumn.Plus(sums, tile, 2 * TColumn.Rows, x[at + 2 * stride]);
        sums = TColumn.Plus(sums, tile, 3 * TColumn.Rows, x[at + 3 * stride]);
        sums = TColumn.Plus(sums, tile, 4 * TColumn.Rows, x[at + 4 * stride]);
        sums = TColumn.Plus(sums, tile, 5 * TColumn.Rows, x[at + 5 * stride]);
        sums = TColumn.Plus(sums, tile, 6 * TColumn.Rows, x[at + 6 * stride]);
        return TColumn.Plus(sums, tile, 7 * TColumn.Rows, x[at + 7 * stride]);
    }

    /// <summary>The first steps of a tile.</summary>
    public static TColumn Part<TColumn, T, TStored>(TColumn sums, ArrayView<float> tile, ArrayView<T> x, long at, long stride, int steps, float scale = 1)
        where TColumn : unmanaged, IColumn<TColumn> where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        for (int k = 0; k < steps; k++) sums = TColumn.Plus(sums, tile, k * TColumn.Rows, TStored.Load(x, at, k, stride, scale));
        return sums;
    }
}
