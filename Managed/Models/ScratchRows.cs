using System.Numerics;
using Treeline.Kernels;

namespace Treeline;

/// <summary>A buffer of rows that grows to the most rows asked for and is then reused: a smaller step takes its first rows.</summary>
/// <param name="backend">Whose memory it is.</param>
/// <param name="type">Element type.</param>
/// <param name="row">Shape of one row; empty: rows are single numbers.</param>
internal sealed class ScratchRows(KernelBackend backend, ElementType type, params int[] row) : IDisposable
{
    // Steps of up to so many rows are decoding, whose sizes vary: room is then made by powers of two, not anew for every tree that is one node larger.
    private const int DecodingRows = 64;

    private DeviceTensor? _all;

    /// <summary>All rows there are, at least so many; another tensor once it has grown.</summary>
    public DeviceTensor Reserve(int rows)
    {
        if (_all is not null && _all.Rows >= rows) return _all;
        Dispose();
        int room = rows > DecodingRows ? rows : (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(1, rows));
        return _all = backend.Allocate(type, [room, .. row]);
    }

    /// <summary>The first rows.</summary>
    public DeviceTensor First(int rows) => Reserve(rows).First(rows);

    /// <summary>Some columns as heads, <c>[rows, heads, headDim]</c>.</summary>
    public ScratchView Heads(int firstColumn, int heads, int headDim) =>
        new(this, all => all.Slice(1, firstColumn, heads * headDim).View(all.Rows, heads, headDim));

    /// <summary>Some columns, <c>[rows, columns]</c>.</summary>
    public ScratchView Columns(int first, int count) => new(this, all => all.Slice(1, first, count));

    /// <summary>Each row as several, <c>[rows · parts, columns / parts]</c>.</summary>
    public ScratchView Split(int parts) => new(this, all => all.View(all.Rows * parts, all.RowLength / parts));

    public void Dispose()
    {
        _all?.Dispose();
        _all = null;
    }
}

/// <summary>A <see cref="ScratchRows"/> seen in another shape; made anew only when that has grown.</summary>
internal sealed class ScratchView(ScratchRows whole, Func<DeviceTensor, DeviceTensor> view)
{
    private DeviceTensor? _of, _view;

    /// <summary>What the first rows of the whole look like.</summary>
    public DeviceTensor First(int rows)
    {
        DeviceTensor all = whole.Reserve(rows);
        if (_view is null || !ReferenceEquals(all, _of)) (_of, _view) = (all, view(all));
        return _view.First(rows * (_view.Rows / all.Rows));
    }
}
