using Treeline.Kernels;

namespace Treeline.Cli.Comparison;

/// <summary>The dense ops, at sizes that are no multiple of a vector's.</summary>
internal static class DenseCases
{
    private const int Rows = 7, Channels = 131, Outputs = 67, Long = 33;

    public static IReadOnlyList<OpCase> All { get; } =
    [
        new("Embedding", "float32", bench => Embedding(bench, bench.Reals(Channels, Outputs))),
        new("Embedding", "bfloat16", bench => Embedding(bench, bench.Own(bench.Backend.Upload<BFloat16>(Array.ConvertAll(bench.Numbers(Channels * Outputs), x => (BFloat16)x), Channels, Outputs)))),
        .. Enum.GetValues<WeightForm>().Select(form => new OpCase("Linear", $"weights {form}", bench => Linear(bench, form, transposed: false))),
        new("Linear", "weights transposed", bench => Linear(bench, WeightForm.Float32, transposed: true)),
        new("RmsNorm", "", bench => Rowwise(bench, (input, output) => bench.Backend.RmsNorm(input, bench.Reals(Channels), 1e-5f, output))),
        new("LayerNorm", "", bench => Rowwise(bench, (input, output) => bench.Backend.LayerNorm(input, bench.Reals(Channels), bench.Reals(Channels), 1e-5f, output))),
        new("RotaryAngles", "plain", bench => Angles(bench, new RotarySpec { RotaryDim = 20 })),
        new("RotaryAngles", "llama3", bench => Angles(bench, new RotarySpec { RotaryDim = 64, Base = 500_000, Scaling = RotaryScaling.Llama3, Factor = 8, OriginalMaxPositions = 8192 })),
        .. Enum.GetValues<RotaryPairs>().Select(pairs => new OpCase("Rotary", $"{pairs}", bench => Rotary(bench, pairs))),
        .. Enum.GetValues<GeluForm>().Select(form => new OpCase("Gelu", $"{form}", bench => Rowwise(bench, (input, output) => bench.Backend.Gelu(input, form, output)))),
        new("Silu", "", bench => Rowwise(bench, bench.Backend.Silu)),
        new("SiluGate", "", bench => Rowwise(bench, (input, output) => bench.Backend.SiluGate(input, bench.Reals(Rows, Channels), output))),
        new("Softmax", "", bench => Rowwise(bench, bench.Backend.Softmax)),
        new("Add", "", bench => Rowwise(bench, (input, output) => bench.Backend.Add(input, bench.Reals(Rows, Channels), output))),
    ];

    private static void Rowwise(OpBench bench, Action<DeviceTensor, DeviceTensor> op)
    {
        DeviceTensor output = bench.Output(Rows, Channels);
        op(bench.Reals(Rows, Channels), output);
        bench.Take(output);
    }

    private static void Embedding(OpBench bench, DeviceTensor table)
    {
        DeviceTensor output = bench.Output(Rows, Outputs);
        bench.Backend.Embedding(table, bench.Integers(bench.Below(Channels, Rows)), output);
        bench.Take(output);
    }

    // One row takes other paths than many on most devices.
    private static void Linear(OpBench bench, WeightForm form, bool transposed)
    {
        DeviceTensor weight = transposed ? bench.Reals(Channels, Outputs) : bench.Reals(Outputs, Channels), bias = bench.Reals(Outputs);
        WeightMatrix packed = bench.Own(bench.Backend.Pack(weight, form, transposed));
        foreach (int rows in new[] { 1, Rows, Long })
        {
            DeviceTensor output = bench.Output(rows, Outputs);
            bench.Backend.Linear(bench.Reals(rows, Channels), packed, rows == Rows ? null : bias, output);
            bench.Take(output);
        }
    }

    private static void Angles(OpBench bench, RotarySpec spec)
    {
        DeviceTensor cosines = bench.Output(Rows, spec.RotaryDim / 2), sines = bench.Output(Rows, spec.RotaryDim / 2);
        bench.Backend.RotaryAngles(spec, bench.Integers([0, 1, .. bench.Below(20_000, Rows - 2)]), cosines, sines);
        bench.Take(cosines);
        bench.Take(sines);
    }

    private static void Rotary(OpBench bench, RotaryPairs pairs)
    {
        const int Heads = 3, HeadDim = 26, Turning = 10;
        DeviceTensor vectors = bench.Reals(Rows, Heads, HeadDim);
        bench.Backend.Rotary(vectors, bench.Reals(Rows, Turning), bench.Reals(Rows, Turning), pairs);
        bench.Take(vectors);
    }
}
