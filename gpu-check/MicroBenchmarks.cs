using System.Text.Json;
using Treeline.Bench;
using Treeline.Kernels;

namespace Treeline.GpuCheck;

/// <summary>Times of single ops at the shapes of a 7-billion-parameter model, against what a copy within the device's memory moves in the same run.</summary>
internal static class MicroBenchmarks
{
    private const int Channels = 4096, Inner = 11_008, Heads = 32, HeadDim = 128, GroupSize = 64, Moved = 512, Vocabulary = 32_000;
    private const float Epsilon = 1e-5f;
    private static readonly int[] ProductRows = [1, 16, 63, 512];

    /// <summary>Measures everything and writes it to a file, anew after every row.</summary>
    /// <returns>0.</returns>
    public static int Run(string backendName, string file)
    {
        using KernelBackend backend = Backends.Open(backendName, new BackendOptions { Lossless = true });
        using DeviceMeter meter = DeviceMeter.Of(backend);
        double copied = meter.CopiedBytesPerSecond();
        List<Measured> rows = [];
        void Add(string name, long bytes, double operations, Action call, DeviceMeter? other = null)
        {
            double seconds = (other ?? meter).Seconds(call);
            rows.Add(new Measured(name, seconds * 1e6, bytes, bytes / seconds / copied, operations / seconds / 1e9));
            File.WriteAllText(file, JsonSerializer.Serialize(new Measures(meter.Clock, copied / 1e9, rows), CheckRecord.Indented));
            Console.WriteLine($"measured {name}");
        }

        Products(backend, "", Add);
        using (KernelBackend other = Backends.Open(backendName, new BackendOptions { Lossless = false }))
        {
            using DeviceMeter otherMeter = DeviceMeter.Of(other);
            if (!other.IsLosslessToTheBit) Products(other, " by the library", Add, otherMeter);
        }

        Rows(backend, Add);
        Selection(backend, Add);
        Attention(backend, Add);
        return 0;
    }

    private delegate void Adder(string name, long bytes, double operations, Action call, DeviceMeter? other = null);

    private static void Products(KernelBackend backend, string how, Adder add, DeviceMeter? meter = null)
    {
        using DeviceTensor weight = RandomTensor.Of(backend, seed: 2, Inner, Channels), most = RandomTensor.Of(backend, seed: 3, ProductRows[^1], Channels);
        foreach (WeightForm form in meter is null ? [WeightForm.Float32, WeightForm.BFloat16] : (WeightForm[])[WeightForm.Float32])
        {
            using WeightMatrix packed = backend.Pack(weight, form);
            foreach (int rows in ProductRows)
            {
                DeviceTensor input = most.First(rows);
                using DeviceTensor output = backend.Allocate(ElementType.Float32, rows, Inner);
                add($"linear {form}{how} {Inner}x{Channels}, {rows} rows", packed.Bytes + Bytes(input, output), 2.0 * rows * Channels * Inner, () => backend.Linear(input, packed, null, output), meter);
            }
        }
    }

    private static void Rows(KernelBackend backend, Adder add)
    {
        const int Tokens = 512;
        using DeviceTensor gain = backend.Allocate(ElementType.Float32, Channels), input = backend.Allocate(ElementType.Float32, Tokens, Channels), output = backend.Allocate(ElementType.Float32, Tokens, Channels);
        using DeviceTensor gate = backend.Allocate(ElementType.Float32, Tokens, Inner), up = backend.Allocate(ElementType.Float32, Tokens, Inner), gated = backend.Allocate(ElementType.Float32, Tokens, Inner);
        add($"rms norm, {Tokens} rows of {Channels}", Bytes(input, gain, output), 0, () => backend.RmsNorm(input, gain, Epsilon, output));
        add($"silu gate, {Tokens} rows of {Inner}", Bytes(gate, up, gated), 0, () => backend.SiluGate(gate, up, gated));
    }

    private static void Selection(KernelBackend backend, Adder add)
    {
        const int Nodes = 63, Candidates = 10;
        using DeviceTensor logits = RandomTensor.Of(backend, seed: 1, Nodes, Vocabulary), tokens = backend.Allocate(ElementType.Int32, Nodes);
        using DeviceTensor values = backend.Allocate(ElementType.Float32, Nodes, Candidates), indices = backend.Allocate(ElementType.Int32, Nodes, Candidates);
        SamplingRow[] rows = [.. Enumerable.Range(0, Nodes).Select(i => new SamplingRow(Seed: 1, Position: i, Temperature: 0.8f, TopK: 40, TopP: 0.95f, MinP: 0))];
        add($"argmax, {Nodes} rows of {Vocabulary}", Bytes(logits), 0, () => backend.ArgMax(logits, tokens));
        add($"top {Candidates}, {Nodes} rows of {Vocabulary}", Bytes(logits), 0, () => backend.TopK(logits, values, indices));
        add($"sample, {Nodes} rows of {Vocabulary}", Bytes(logits), 0, () => backend.Sample(logits, rows, tokens));
    }

    private static void Attention(KernelBackend backend, Adder add)
    {
        foreach (AttentionSpec spec in (AttentionSpec[])[AttentionSpec.Augmented(Heads, Heads, HeadDim, GroupSize), AttentionSpec.Softmax(Heads, Heads, HeadDim)])
        {
            string name = spec.Attention == "flash" ? "augmented" : spec.Attention;
            if (!backend.Supports(spec, out string why)) throw new NotSupportedException($"{name}: {why}");
            if (spec.Attention == "flash")
            {
                using var moving = new AttentionLoad(backend, spec, 0);
                double work = 2.0 * Moved * Heads * (GroupSize + 1 + 2.0 * HeadDim) * HeadDim;
                add($"{name}, {Moved} tokens moved", 4L * Moved * Heads * HeadDim * sizeof(float), work, () => moving.QueueAdvance(Moved));
            }

            foreach (int past in (int[])[1000, 8000])
            {
                using var load = new AttentionLoad(backend, spec, past);
                foreach (int nodes in (int[])[1, 16, 63])
                {
                    TokenTree tree = Trees.Of(nodes);
                    add($"{name}, {nodes} nodes on a past of {past}", load.StateBytes + 4L * nodes * Heads * HeadDim * sizeof(float), 0, () => load.Queue(tree));
                }
            }
        }
    }

    private static long Bytes(params ReadOnlySpan<DeviceTensor> tensors)
    {
        long bytes = 0;
        foreach (DeviceTensor tensor in tensors) bytes += tensor.Count * tensor.Type.Size();
        return bytes;
    }
}
