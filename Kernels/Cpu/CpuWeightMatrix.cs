namespace Treeline.Kernels;

/// <summary>A weight as the CPU's products read it.</summary>
/// <remarks>
/// Packed: panels of <see cref="Lanes"/> outputs, <c>[panel][input][lane]</c>, zero past the last output, so that a vector's lanes run over outputs and
/// one row streams the memory in order; in 8 and 4 bits a panel is a row of blocks (<see cref="IPackedBlock"/>). In place: the tensor's own rows.
/// </remarks>
internal sealed unsafe class CpuWeightMatrix : WeightMatrix
{
    private readonly DeviceBuffer? _packed;
    private readonly DeviceTensor? _inPlace;                // kept from the garbage collector too

    /// <summary>Memory for a packed weight, zeroed.</summary>
    public CpuWeightMatrix(CpuBackend backend, WeightForm form, int outputs, int inputs, int lanes, Func<long, DeviceBuffer> allocate)
        : base(backend, form, outputs, inputs)
    {
        Lanes = lanes;
        Type = form switch
        {
            WeightForm.BFloat16 => ElementType.BFloat16,
            WeightForm.Float16 => ElementType.Float16,
            _ => ElementType.Float32,
        };
        RowStride = (long)lanes * inputs;
        Panels = (outputs + lanes - 1) / lanes;
        PanelBytes = form switch
        {
            WeightForm.Int8 => PanelOf<Int8Block>(lanes, inputs),
            WeightForm.Int4 => PanelOf<Int4Block>(lanes, inputs),
            _ => RowStride * Type.Size(),
        };
        Bytes = checked(Panels * PanelBytes);
        _packed = allocate(Bytes);
        Pointer = ((HostBuffer)_packed).Pointer;
    }

    /// <summary>A weight used where it lies.</summary>
    public CpuWeightMatrix(CpuBackend backend, DeviceTensor weight) : base(backend, WeightForm.InPlace, weight.Rows, weight.RowLength)
    {
        _inPlace = weight;
        Type = weight.Type;
        RowStride = weight.RowStride;
        Bytes = weight.Count * Type.Size();
        Pointer = ((HostBuffer)weight.Buffer).Pointer + weight.Offset * Type.Size();
    }

    public override long Bytes { get; }

    /// <summary>What one number is stored as, or widened to where blocks of integers are.</summary>
    public ElementType Type { get; }

    /// <summary>Outputs of a panel.</summary>
    public int Lanes { get; }

    /// <summary>Number of panels.</summary>
    public int Panels { get; }

    /// <summary>Elements from one panel, or in place from one row, to the next.</summary>
    public long RowStride { get; }

    /// <summary>Bytes from one panel to the next.</summary>
    public long PanelBytes { get; }

    public byte* Pointer { get; }

    /// <summary>Refuses a weight whose tensor was disposed under it.</summary>
    public void RequireMemory()
    {
        if (_inPlace is not null) ObjectDisposedException.ThrowIf(_inPlace.Buffer.IsDisposed, _inPlace);
    }

    protected override void Dispose(bool disposing) => _packed?.Dispose();

    private static long PanelOf<B>(int lanes, int inputs) where B : struct, IPackedBlock
    {
        int whole = inputs / WeightBlocks.Size, rest = inputs % WeightBlocks.Size;
        long bytes = (long)whole * B.Bytes(WeightBlocks.Size, lanes) + (rest == 0 ? 0 : B.Bytes(rest, lanes));
        return (bytes + sizeof(float) - 1) / sizeof(float) * sizeof(float);
    }
}

public unsafe partial class CpuBackend
{
    /// <inheritdoc/>
    protected override WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (form == WeightForm.InPlace) return new CpuWeightMatrix(this, weight);
        (int outputs, int inputs) = transposed ? (weight.RowLength, weight.Rows) : (weight.Rows, weight.RowLength);
        var packed = new CpuWeightMatrix(this, form, outputs, inputs, Kernels.PanelLanes, AllocateCore);
        try
        {
            var job = new PackJob(weight, packed, transposed);
            Threads.For(packed.Panels, ref job);
            return packed;
        }
        catch
        {
            packed.Dispose();
            throw;
        }
    }

    private readonly struct PackJob(DeviceTensor from, CpuWeightMatrix to, bool transposed) : IJob
    {
        public void Run(int part, int worker)
        {
            switch (from.Type)
            {
                case ElementType.BFloat16: Run<BFloat16Element>(part); break;
                case ElementType.Float16: Run<Float16Element>(part); break;
                default: Run<Float32Element>(part); break;
            }
        }

        private void Run<TFrom>(int panel) where TFrom : struct, IElement
        {
            switch (to.Form)
            {
                case WeightForm.BFloat16: Run<TFrom, BFloat16Element>(panel); break;
                case WeightForm.Float16: Run<TFrom, Float16Element>(panel); break;
                case WeightForm.Int8: RunBlocks<TFrom, Int8Block>(panel); break;
                case WeightForm.Int4: RunBlocks<TFrom, Int4Block>(panel); break;
                default: Run<TFrom, Float32Element>(panel); break;
            }
        }

        private void Run<TFrom, TTo>(int panel)
            where TFrom : struct, IElement
            where TTo : struct, IElement
        {
            const int Block = 64;                           // channels that stay in cache while the lanes take turns
            (nint output, nint input) = Strides;
            byte* source = from.Pointer<byte>() + from.Offset * (TFrom.Size - 1);
            byte* target = to.Pointer + panel * to.PanelBytes;
            int first = panel * to.Lanes, lanes = Math.Min(to.Lanes, to.Outputs - first);
            for (int block = 0; block < to.Inputs; block += Block)
            {
                int end = Math.Min(block + Block, to.Inputs);
                for (int lane = 0; lane < lanes; lane++)
                    for (int c = block; c < end; c++)
                        TTo.Set(target, (nint)c * to.Lanes + lane, TFrom.Get(source, (first + lane) * output + c * input));
            }
        }

        private (nint Output, nint Input) Strides => transposed ? (1, (nint)from.RowStride) : ((nint)from.RowStride, 1);

        private void RunBlocks<TFrom, TBlock>(int panel)
            where TFrom : struct, IElement
            where TBlock : struct, IPackedBlock
        {
            (nint output, nint input) = Strides;
            byte* source = from.Pointer<byte>() + from.Offset * (TFrom.Size - 1);
            byte* block = to.Pointer + panel * to.PanelBytes;
            int first = panel * to.Lanes, lanes = Math.Min(to.Lanes, to.Outputs - first);
            Span<float> weights = stackalloc float[WeightBlocks.Size];
            Span<sbyte> integers = stackalloc sbyte[WeightBlocks.Size];
            for (int channel = 0; channel < to.Inputs; channel += WeightBlocks.Size, block += TBlock.Bytes(WeightBlocks.Size, to.Lanes))
            {
                int count = Math.Min(WeightBlocks.Size, to.Inputs - channel);
                for (int lane = 0; lane < lanes; lane++)
                {
                    for (int c = 0; c < count; c++) weights[c] = TFrom.Get(source, (first + lane) * output + (channel + c) * input);
                    ((float*)block)[lane] = WeightBlocks.Quantize(to.Form, weights[..count], integers[..count], first + lane, channel);
                    for (int c = 0; c < count; c++) TBlock.Set(block, c, lane, to.Lanes, integers[c]);
                }
            }
        }
    }
}
