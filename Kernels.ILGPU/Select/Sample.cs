using global::ILGPU;
using global::ILGPU.Algorithms;
using global::ILGPU.Runtime;

namespace Treeline.Kernels.ILGPU;

public sealed partial class IlgpuBackend
{
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<DrawRow>, ArrayView<CutRow>, int>? _sampleCut;
    private Action<AcceleratorStream, KernelConfig, Rows, ArrayView<DrawRow>, ArrayView<CutRow>, ArrayView<int>, int, int>? _sample;
    private DeviceArray<CutRow>? _cuts;
    private DeviceArray<DrawRow>? _draws;
    private DeviceArray<int>? _drawn;
    private DrawRow[] _hostDraws = [];
    private int[] _hostDrawn = [];

    /// <inheritdoc/>
    protected override void SampleCore(DeviceTensor logits, ReadOnlySpan<SamplingRow> rows, DeviceTensor tokens)
    {
        ArgumentNullException.ThrowIfNull(logits);
        ArgumentNullException.ThrowIfNull(tokens);
        int n = logits.Rows;
        if (n == 0) return;
        if (_hostDraws.Length < n) (_hostDraws, _hostDrawn) = (new DrawRow[2 * n], new int[2 * n]);
        for (int i = 0; i < n; i++) _hostDraws[i] = new DrawRow(rows[i]);
        ArrayView<DrawRow> draws = (_draws ??= new DeviceArray<DrawRow>(this)).Upload(_hostDraws.AsSpan(0, n));
        ArrayView<int> drawn = (_drawn ??= new DeviceArray<int>(this)).Reserve(n);
        ArrayView<CutRow> cuts = (_cuts ??= new DeviceArray<CutRow>(this)).Reserve(n);
        Rows from = Floats(logits, 0);
        bool cut = Cuts(rows, logits.RowLength);
        if (cut) Load(ref _sampleCut, SampleCutKernel)(Stream, SearchGroups(n, logits.RowLength), from, draws, cuts, logits.RowLength);
        Load(ref _sample, SampleKernel)(Stream, SearchGroups(n, logits.RowLength), from, draws, cuts, drawn, logits.RowLength, cut ? 1 : 0);

        // What cannot be drawn from is an error of the call, so these few numbers come back before the tokens are written.
        Span<int> host = _hostDrawn.AsSpan(0, n);
        _drawn.Download(host);
        for (int i = 0; i < n; i++)
        {
            if (host[i] >= 0) continue;
            string what = host[i] switch { DrawRow.HasNaN => "NaN", DrawRow.HasInfinity => "+infinity", _ => "no finite number" };
            throw new ArgumentException($"logits: row {i} has {what}", nameof(logits));
        }

        WriteCore(tokens, System.Runtime.InteropServices.MemoryMarshal.AsBytes(host));
    }

    private static bool Cuts(ReadOnlySpan<SamplingRow> rows, int columns)
    {
        foreach (SamplingRow row in rows)
            if (row.TopP < 1 || (row.TopK > 0 && row.TopK < columns)) return true;
        return false;
    }

    // A group a row: where top-k and top-p cut, in the order of falling logits. Not by sorting: the logit at the cut is built bit by bit from its highest one,
    // by counting (top-k) or weighing (top-p) the logits above. No barrier stands under a condition: OpenCL compilers for CPUs copy the code behind each such one.
    private static void SampleCutKernel(Rows logits, ArrayView<DrawRow> draws, ArrayView<CutRow> cuts, int columns)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(RowGroup.Most);
        ArrayView<double> sums = SharedMemory.Allocate<double>(RowGroup.Most);
        ArrayView<int> counts = SharedMemory.Allocate<int>(RowGroup.Most);
        int row = Grid.IdxX, thread = Group.IdxX;
        DrawRow draw = draws[row];
        float own = float.NegativeInfinity;
        for (int c = thread; c < columns; c += Group.DimX) own = RowGroup.Larger(own, logits[row, c]);
        float largest = RowGroup.Max(values, own);

        // Top-k: the largest key that k logits reach, and how many of those that have it are kept (the first ones).
        int k = draw.TopK > 0 && draw.TopK < columns ? draw.TopK : columns;
        uint key = 0;
        for (int bit = 31; bit >= 0; bit--)
        {
            uint trial = key | (1u << bit);
            key = CountAbove(logits, row, columns, trial - 1, counts) >= k ? trial : key;
        }

        int ties = k - CountAbove(logits, row, columns, key, counts);

        // Top-p among them: the largest key whose mass, itself included, reaches p.
        double weight = Weight(Logit(key), largest, draw.Temperature);
        double wanted = draw.TopP * (MassAbove(logits, row, columns, key, largest, draw.Temperature, sums) + ties * weight);
        uint nucleus = 0;
        for (int bit = 31; bit >= 0; bit--)
        {
            uint trial = nucleus | (1u << bit);
            nucleus = MassAbove(logits, row, columns, trial - 1, largest, draw.Temperature, sums) >= wanted ? trial : nucleus;
        }

        nucleus = XMath.Max(nucleus, key);
        int equal = CountAbove(logits, row, columns, nucleus - 1, counts) - CountAbove(logits, row, columns, nucleus, counts);
        double before = MassAbove(logits, row, columns, nucleus, largest, draw.Temperature, sums);
        if (thread != 0) return;
        if (draw.TopP < 1)
        {
            if (nucleus != key) ties = equal;
            weight = Weight(Logit(nucleus), largest, draw.Temperature);
            int needed = 1;
            while (needed < ties && before + needed * weight < wanted) needed++;
            (key, ties) = (nucleus, needed);
        }

        cuts[row] = new CutRow(key, ties);
    }

    // A group a row: each thread sums a stretch of ids, the stretch where the sum passes the uniform number is walked again.
    private static void SampleKernel(Rows logits, ArrayView<DrawRow> draws, ArrayView<CutRow> cuts, ArrayView<int> tokens, int columns, int hasCuts)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(RowGroup.Most);
        ArrayView<double> sums = SharedMemory.Allocate<double>(RowGroup.Most);
        ArrayView<int> counts = SharedMemory.Allocate<int>(RowGroup.Most);
        int row = Grid.IdxX, thread = Group.IdxX;
        DrawRow draw = draws[row];
        uint key = hasCuts != 0 ? cuts[row].Key : 0;
        int ties = hasCuts != 0 ? cuts[row].Ties : columns;
        int length = (columns + Group.DimX - 1) / Group.DimX, from = XMath.Min(columns, thread * length), to = XMath.Min(columns, from + length);

        float own = float.NegativeInfinity;
        int equalHere = 0;
        for (int c = from; c < to; c++)
        {
            own = RowGroup.Larger(own, logits[row, c]);
            if (Key(logits[row, c]) == key) equalHere++;
        }

        float largest = RowGroup.Max(values, own);
        int equalBefore = SumBefore(counts, equalHere, thread), seen = equalBefore, first = columns;
        double sum = 0;
        for (int c = to - 1; c >= from; c--)
            if (logits[row, c] == largest) first = c;
        for (int c = from; c < to; c++) sum += KeptWeight(logits[row, c], key, ties, ref seen, largest, draw);
        first = Smallest(counts, first);
        double stop = draw.Uniform * Total(sums, sum), passed = SumBefore(sums, sum, thread);

        int found = columns, last = -1;
        seen = equalBefore;
        for (int c = from; c < to; c++)
        {
            float weight = KeptWeight(logits[row, c], key, ties, ref seen, largest, draw);
            if (weight == 0 || found < columns) continue;
            last = c;
            passed += weight;
            if (passed > stop) found = c;
        }

        found = Smallest(counts, found);
        last = -Smallest(counts, -last);                    // the last token with weight, where rounding keeps the sum from passing
        if (thread != 0) return;
        int token = draw.Temperature == 0 ? first : found < columns ? found : last;
        if (XMath.IsNaN(largest)) token = DrawRow.HasNaN;
        else if (largest == float.PositiveInfinity) token = DrawRow.HasInfinity;
        else if (largest == float.NegativeInfinity) token = DrawRow.HasNothing;
        tokens[row] = token;
    }

    private static float KeptWeight(float x, uint key, int ties, ref int seen, float largest, DrawRow draw)
    {
        uint own = Key(x);
        if (own < key) return 0;
        if (own == key && seen++ >= ties) return 0;
        float weight = Weight(x, largest, draw.Temperature);
        return weight < draw.MinP ? 0 : weight;
    }

    private static float Weight(float x, float largest, float temperature) => XMath.Exp((x - largest) / temperature);

    /// <summary>An integer that is larger where the number is larger; -0 counts as +0.</summary>
    private static uint Key(float x)
    {
        uint bits = Interop.FloatAsInt(x == 0 ? 0f : x);
        return (bits & 0x80000000) != 0 ? ~bits : bits | 0x80000000;
    }

    private static float Logit(uint key) => Interop.IntAsFloat((key & 0x80000000) != 0 ? key & 0x7FFFFFFF : ~key);

    private static int CountAbove(Rows logits, int row, int columns, uint key, ArrayView<int> shared)
    {
        int count = 0;
        for (int c = Group.IdxX; c < columns; c += Group.DimX)
            if (Key(logits[row, c]) > key) count++;
        shared[Group.IdxX] = count;
        Group.Barrier();
        count = 0;
        for (int t = 0; t < Group.DimX; t++) count += shared[t];
        Group.Barrier();
        return count;
    }

    private static double MassAbove(Rows logits, int row, int columns, uint key, float largest, float temperature, ArrayView<double> shared)
    {
        double mass = 0;
        for (int c = Group.IdxX; c < columns; c += Group.DimX)
            if (Key(logits[row, c]) > key) mass += Weight(logits[row, c], largest, temperature);
        return Total(shared, mass);
    }

    // Not as a tree: with the barriers of one, here within loops, an OpenCL compiler for CPUs takes half a minute.
    private static double Total(ArrayView<double> shared, double own)
    {
        shared[Group.IdxX] = own;
        Group.Barrier();
        double total = 0;
        for (int t = 0; t < Group.DimX; t++) total += shared[t];
        Group.Barrier();
        return total;
    }

    private static int SumBefore(ArrayView<int> shared, int own, int thread)
    {
        shared[thread] = own;
        Group.Barrier();
        int sum = 0;
        for (int t = 0; t < Group.DimX; t++) sum += t < thread ? shared[t] : 0;
        Group.Barrier();
        return sum;
    }

    private static double SumBefore(ArrayView<double> shared, double own, int thread)
    {
        shared[thread] = own;
        Group.Barrier();
        double sum = 0;
        for (int t = 0; t < Group.DimX; t++) sum += t < thread ? shared[t] : 0;
        Group.Barrier();
        return sum;
    }

    private static int Smallest(ArrayView<int> shared, int own)
    {
        shared[Group.IdxX] = own;
        Group.Barrier();
        int smallest = own;
        for (int t = 0; t < Group.DimX; t++) smallest = XMath.Min(smallest, shared[t]);
        Group.Barrier();
        return smallest;
    }
}

/// <summary>Where a row is cut: logits with a larger key are kept, and the first few that have this one.</summary>
internal readonly struct CutRow(uint key, int ties)
{
    public readonly uint Key = key;
    public readonly int Ties = ties;
}

/// <summary>How a row is drawn from, as kernels see it.</summary>
internal readonly struct DrawRow(SamplingRow row)
{
    public const int HasNaN = -1, HasInfinity = -2, HasNothing = -3;

    public readonly double Uniform = row.Uniform;
    public readonly float Temperature = row.Temperature;
    public readonly float TopP = row.TopP;
    public readonly float MinP = row.MinP;
    public readonly int TopK = row.TopK;
}
