using static Treeline.Kernels.OracleNumbers;

namespace Treeline.Kernels;

public sealed partial class OracleBackend
{
    /// <inheritdoc/>
    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(input);
        double[][] rows = ((OracleWeights)weight).Rows();
        double[]? added = bias is null ? null : All(bias);
        for (int i = 0; i < input.Rows; i++)
        {
            double[] x = Row(input, i);
            var y = new double[rows.Length];
            for (int o = 0; o < rows.Length; o++)
            {
                for (int c = 0; c < x.Length; c++) y[o] += rows[o][c] * x[c];
                if (added is not null) y[o] += added[o];
            }

            Store(output, i, y);
        }
    }

    /// <inheritdoc/>
    protected override WeightMatrix PackCore(DeviceTensor weight, WeightForm form, bool transposed)
    {
        ArgumentNullException.ThrowIfNull(weight);
        if (form == WeightForm.InPlace) return new OracleWeights(this, weight);
        double[][] stored = Rows(weight);
        int outputs = transposed ? weight.RowLength : weight.Rows, inputs = transposed ? weight.Rows : weight.RowLength;
        var rows = new double[outputs][];
        for (int o = 0; o < outputs; o++)
        {
            rows[o] = new double[inputs];
            for (int c = 0; c < inputs; c++) rows[o][c] = transposed ? stored[c][o] : stored[o][c];
            if (form is WeightForm.Int8 or WeightForm.Int4) RoundBlocks(rows[o], form, o);
            else for (int c = 0; c < inputs; c++) rows[o][c] = Round(rows[o][c], form);
        }

        return new OracleWeights(this, form, rows);
    }

    // What blocks of integers stand for. Their integers are a rule of the contract; only what is computed with them is the oracle's own.
    private static void RoundBlocks(double[] row, WeightForm form, int output)
    {
        for (int first = 0; first < row.Length; first += WeightBlocks.Size)
        {
            Span<double> block = row.AsSpan(first, Math.Min(WeightBlocks.Size, row.Length - first));
            var weights = new float[block.Length];
            for (int i = 0; i < weights.Length; i++) weights[i] = (float)block[i];
            var integers = new sbyte[block.Length];
            double scale = WeightBlocks.Quantize(form, weights, integers, output, first);
            for (int i = 0; i < weights.Length; i++) block[i] = (float)(scale * integers[i]);
        }
    }

    private static double Round(double x, WeightForm form) => form switch
    {
        WeightForm.Float32 => (float)x,
        WeightForm.BFloat16 => (float)(BFloat16)(float)x,
        WeightForm.Float16 => (double)(Half)x,
        _ => throw new NotSupportedException($"oracle: weight form {form} is unknown"),
    };

    /// <summary>A weight matrix as rows of float64, rounded to its form when packed; in place it is read anew for every product.</summary>
    private sealed class OracleWeights : WeightMatrix
    {
        private readonly DeviceTensor? _inPlace;
        private double[][] _rows = [];

        public OracleWeights(OracleBackend backend, WeightForm form, double[][] rows) : base(backend, form, rows.Length, rows[0].Length)
        {
            _rows = rows;
            Bytes = Outputs * (form switch
            {
                WeightForm.Int8 or WeightForm.Int4 => WeightBlocks.Bytes(form, Inputs),
                WeightForm.Float32 => (long)sizeof(float) * Inputs,
                _ => (long)sizeof(short) * Inputs,
            });
        }

        public OracleWeights(OracleBackend backend, DeviceTensor inPlace) : base(backend, WeightForm.InPlace, inPlace.Rows, inPlace.RowLength)
        {
            _inPlace = inPlace;
            Bytes = inPlace.Count * inPlace.Type.Size();
        }

        public override long Bytes { get; }

        public double[][] Rows()
        {
            if (_inPlace is null) return _rows;
            ObjectDisposedException.ThrowIf(_inPlace.Buffer.IsDisposed, _inPlace);
            return OracleNumbers.Rows(_inPlace);
        }

        protected override void Dispose(bool disposing) => _rows = [];
    }
}
