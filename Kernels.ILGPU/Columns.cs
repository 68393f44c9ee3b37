using global::ILGPU;
using global::ILGPU.Util;

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

    /// <summary>The same, but a number of the tile that is <see cref="Tile.Unseen"/> leaves its row's sum as it is.</summary>
    static abstract TSelf PlusSeen(TSelf sums, ArrayView<float> tile, int at, float x);

    /// <summary>x[r] from a row on, <see cref="Tile.Unseen"/> before it.</summary>
    static abstract TSelf From(TSelf x, int row);

    /// <summary>x[r] + y.</summary>
    static abstract TSelf Sum(TSelf x, float y);

    /// <summary>to[at + r · stride] = x[r] for the rows whose bit is set.</summary>
    static abstract void Store(TSelf x, ArrayView<float> to, long at, long stride, uint rows);

    /// <summary>to[at + r] = x[r].</summary>
    static abstract void StoreAll(TSelf x, ArrayView<float> to, long at);

    /// <summary>Each number through a function.</summary>
    static abstract TSelf Map<TFunction>(TSelf x) where TFunction : struct, IColumnFunction;
}

/// <summary>A function of one number.</summary>
internal interface IColumnFunction
{
    static abstract float Apply(float x);
}

internal struct Column1 : IColumn<Column1>
{
    public float R0;

    public static int Rows => 1;

    public static Column1 Plus(Column1 sums, ArrayView<float> tile, int at, float x) => new() { R0 = Fused.MultiplyAdd(tile[at], x, sums.R0) };

    public static Column1 PlusSeen(Column1 sums, ArrayView<float> tile, int at, float x) => new() { R0 = Tile.PlusSeen(sums.R0, tile[at], x) };

    public static Column1 From(Column1 x, int row) => new() { R0 = Utilities.Select(row <= 0, x.R0, Tile.Unseen) };

    public static Column1 Sum(Column1 x, float y) => new() { R0 = x.R0 + y };

    public static void Store(Column1 x, ArrayView<float> to, long at, long stride, uint rows)
    {
        if ((rows & 1) != 0) to[at] = x.R0;
    }

    public static void StoreAll(Column1 x, ArrayView<float> to, long at) => to[at] = x.R0;

    public static Column1 Map<TFunction>(Column1 x) where TFunction : struct, IColumnFunction => new() { R0 = TFunction.Apply(x.R0) };
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

    public static Column8 PlusSeen(Column8 sums, ArrayView<float> tile, int at, float x) => new()
    {
        R0 = Tile.PlusSeen(sums.R0, tile[at], x),
        R1 = Tile.PlusSeen(sums.R1, tile[at + 1], x),
        R2 = Tile.PlusSeen(sums.R2, tile[at + 2], x),
        R3 = Tile.PlusSeen(sums.R3, tile[at + 3], x),
        R4 = Tile.PlusSeen(sums.R4, tile[at + 4], x),
        R5 = Tile.PlusSeen(sums.R5, tile[at + 5], x),
        R6 = Tile.PlusSeen(sums.R6, tile[at + 6], x),
        R7 = Tile.PlusSeen(sums.R7, tile[at + 7], x),
    };

    public static Column8 From(Column8 x, int row) => new()
    {
        R0 = Utilities.Select(row <= 0, x.R0, Tile.Unseen),
        R1 = Utilities.Select(row <= 1, x.R1, Tile.Unseen),
        R2 = Utilities.Select(row <= 2, x.R2, Tile.Unseen),
        R3 = Utilities.Select(row <= 3, x.R3, Tile.Unseen),
        R4 = Utilities.Select(row <= 4, x.R4, Tile.Unseen),
        R5 = Utilities.Select(row <= 5, x.R5, Tile.Unseen),
        R6 = Utilities.Select(row <= 6, x.R6, Tile.Unseen),
        R7 = Utilities.Select(row <= 7, x.R7, Tile.Unseen),
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

    /// <summary>from[at + r · stride].</summary>
    public static Column8 Load(ArrayView<float> from, long at, long stride) => new()
    {
        R0 = from[at],
        R1 = from[at + stride],
        R2 = from[at + 2 * stride],
        R3 = from[at + 3 * stride],
        R4 = from[at + 4 * stride],
        R5 = from[at + 5 * stride],
        R6 = from[at + 6 * stride],
        R7 = from[at + 7 * stride],
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

    public static void StoreAll(Column8 x, ArrayView<float> to, long at)
    {
        to[at] = x.R0;
        to[at + 1] = x.R1;
        to[at + 2] = x.R2;
        to[at + 3] = x.R3;
        to[at + 4] = x.R4;
        to[at + 5] = x.R5;
        to[at + 6] = x.R6;
        to[at + 7] = x.R7;
    }

    public static Column8 Map<TFunction>(Column8 x) where TFunction : struct, IColumnFunction => new()
    {
        R0 = TFunction.Apply(x.R0),
        R1 = TFunction.Apply(x.R1),
        R2 = TFunction.Apply(x.R2),
        R3 = TFunction.Apply(x.R3),
        R4 = TFunction.Apply(x.R4),
        R5 = TFunction.Apply(x.R5),
        R6 = TFunction.Apply(x.R6),
        R7 = TFunction.Apply(x.R7),
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

    public static Column32 PlusSeen(Column32 sums, ArrayView<float> tile, int at, float x) => new()
    {
        A = Column8.PlusSeen(sums.A, tile, at, x),
        B = Column8.PlusSeen(sums.B, tile, at + 8, x),
        C = Column8.PlusSeen(sums.C, tile, at + 16, x),
        D = Column8.PlusSeen(sums.D, tile, at + 24, x),
    };

    public static Column32 From(Column32 x, int row) => new() { A = Column8.From(x.A, row), B = Column8.From(x.B, row - 8), C = Column8.From(x.C, row - 16), D = Column8.From(x.D, row - 24) };

    public static Column32 Sum(Column32 x, float y) => new() { A = Column8.Sum(x.A, y), B = Column8.Sum(x.B, y), C = Column8.Sum(x.C, y), D = Column8.Sum(x.D, y) };

    /// <summary>from[at + r · stride].</summary>
    public static Column32 Load(ArrayView<float> from, long at, long stride) => new()
    {
        A = Column8.Load(from, at, stride),
        B = Column8.Load(from, at + 8 * stride, stride),
        C = Column8.Load(from, at + 16 * stride, stride),
        D = Column8.Load(from, at + 24 * stride, stride),
    };

    public static void Store(Column32 x, ArrayView<float> to, long at, long stride, uint rows)
    {
        Column8.Store(x.A, to, at, stride, rows);
        Column8.Store(x.B, to, at + 8 * stride, stride, rows >> 8);
        Column8.Store(x.C, to, at + 16 * stride, stride, rows >> 16);
        Column8.Store(x.D, to, at + 24 * stride, stride, rows >> 24);
    }

    public static void StoreAll(Column32 x, ArrayView<float> to, long at)
    {
        Column8.StoreAll(x.A, to, at);
        Column8.StoreAll(x.B, to, at + 8);
        Column8.StoreAll(x.C, to, at + 16);
        Column8.StoreAll(x.D, to, at + 24);
    }

    public static Column32 Map<TFunction>(Column32 x) where TFunction : struct, IColumnFunction => new()
    {
        A = Column8.Map<TFunction>(x.A),
        B = Column8.Map<TFunction>(x.B),
        C = Column8.Map<TFunction>(x.C),
        D = Column8.Map<TFunction>(x.D),
    };
}

/// <summary>Steps of a product that read one tile.</summary>
internal static class Tile
{
    /// <summary>Steps between two barriers, unrolled: no compiler here does it by itself, and without it the sums leave their registers at every step.</summary>
    public const int Steps = 16;

    /// <summary>Stands in a left side for a step that a row does not take: -0, which no local weight is. (A product with 0 would not do: the other factor may be infinite.)</summary>
    public const float Unseen = -0f;

    /// <summary>Room for the most rows that a column has.</summary>
    public const int Size = Steps * 32;

    /// <summary>sum + seen · x, or sum where seen says so: chosen afterwards, because compilers leave their vectors for a branch.</summary>
    public static float PlusSeen(float sum, float seen, float x) => Utilities.Select(Interop.FloatAsInt(seen) == 0x80000000, sum, Fused.MultiplyAdd(seen, x, sum));

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

    /// <summary>Eight steps of a left side that lies in the device's memory, its steps and those of the right side some numbers apart.</summary>
    public static TColumn Eight<TColumn>(TColumn sums, ArrayView<float> tile, long left, long step, ArrayView<float> from, long x, long stride) where TColumn : unmanaged, IColumn<TColumn>
    {
        sums = TColumn.Plus(sums, tile.SubView(left, TColumn.Rows), 0, from[x]);
        sums = TColumn.Plus(sums, tile.SubView(left + step, TColumn.Rows), 0, from[x + stride]);
        sums = TColumn.Plus(sums, tile.SubView(left + 2 * step, TColumn.Rows), 0, from[x + 2 * stride]);
        sums = TColumn.Plus(sums, tile.SubView(left + 3 * step, TColumn.Rows), 0, from[x + 3 * stride]);
        sums = TColumn.Plus(sums, tile.SubView(left + 4 * step, TColumn.Rows), 0, from[x + 4 * stride]);
        sums = TColumn.Plus(sums, tile.SubView(left + 5 * step, TColumn.Rows), 0, from[x + 5 * stride]);
        sums = TColumn.Plus(sums, tile.SubView(left + 6 * step, TColumn.Rows), 0, from[x + 6 * stride]);
        return TColumn.Plus(sums, tile.SubView(left + 7 * step, TColumn.Rows), 0, from[x + 7 * stride]);
    }

    /// <summary>Four steps of which each row takes only those that it sees.</summary>
    public static TColumn FourSeen<TColumn>(TColumn sums, ArrayView<float> tile, long left, long step, ArrayView<float> from, long x, long stride) where TColumn : unmanaged, IColumn<TColumn>
    {
        sums = TColumn.PlusSeen(sums, tile.SubView(left, TColumn.Rows), 0, from[x]);
        sums = TColumn.PlusSeen(sums, tile.SubView(left + step, TColumn.Rows), 0, from[x + stride]);
        sums = TColumn.PlusSeen(sums, tile.SubView(left + 2 * step, TColumn.Rows), 0, from[x + 2 * stride]);
        return TColumn.PlusSeen(sums, tile.SubView(left + 3 * step, TColumn.Rows), 0, from[x + 3 * stride]);
    }

    /// <summary>The steps that are left, fewer than eight.</summary>
    public static TColumn Few<TColumn>(TColumn sums, ArrayView<float> tile, long left, long step, ArrayView<float> from, long x, long stride, int steps) where TColumn : unmanaged, IColumn<TColumn>
    {
        for (int k = 0; k < steps; k++) sums = TColumn.Plus(sums, tile.SubView(left + k * step, TColumn.Rows), 0, from[x + k * stride]);
        return sums;
    }

    /// <summary>The first steps of a tile.</summary>
    public static TColumn Part<TColumn, T, TStored>(TColumn sums, ArrayView<float> tile, ArrayView<T> x, long at, long stride, int steps, float scale = 1)
        where TColumn : unmanaged, IColumn<TColumn> where T : unmanaged where TStored : struct, IStoredWeight<T>
    {
        for (int k = 0; k < steps; k++) sums = TColumn.Plus(sums, tile, k * TColumn.Rows, TStored.Load(x, at, k, stride, scale));
        return sums;
    }
}
