namespace Treeline.Tests.Managed.Models;

/// <summary>LLaMA and GPT-2 with softmax attention as plain float64 loops over all tokens at once: no cache, no batch, nothing shared with the library.</summary>
/// <param name="checkpoint">Configuration and weights.</param>
/// <param name="frequency">Rotary frequency of pair j at a position; of no effect for GPT-2.</param>
internal sealed class PlainModel(TinyCheckpoint checkpoint, Func<int, int, double> frequency)
{
    private const int Hidden = TinyCheckpoint.Hidden, HeadDim = TinyCheckpoint.HeadDim;

    private bool IsLlama => (string)checkpoint.Config["model_type"]! == "llama";

    /// <summary>Logits of every token, <c>[tokens, vocabulary]</c>.</summary>
    public double[] Logits(int[] ids)
    {
        double[][] stream = [.. ids.Select((id, position) => IsLlama
            ? Row("model.embed_tokens.weight", id)
            : Sum(Row("transformer.wte.weight", id), Row("transformer.wpe.weight", position)))];
        for (int layer = 0; layer < TinyCheckpoint.Layers; layer++)
        {
            string at = IsLlama ? $"model.layers.{layer}" : $"transformer.h.{layer}";
            double[][] attended = Attend(layer, at, [.. stream.Select(x => Norm(x, IsLlama ? $"{at}.input_layernorm" : $"{at}.ln_1"))]);
            for (int i = 0; i < ids.Length; i++)
            {
                stream[i] = Sum(stream[i], attended[i]);
                double[] normed = Norm(stream[i], IsLlama ? $"{at}.post_attention_layernorm" : $"{at}.ln_2");
                stream[i] = Sum(stream[i], FeedForward(at, normed));
            }
        }

        string embedding = IsLlama ? "model.embed_tokens.weight" : "transformer.wte.weight";
        string head = checkpoint.Tensors.ContainsKey("lm_head.weight") ? "lm_head.weight" : embedding;
        return [.. stream.SelectMany(x => Linear(Norm(x, IsLlama ? "model.norm" : "transformer.ln_f"), head, null))];
    }

    private double[][] Attend(int layer, string at, double[][] inputs)
    {
        int heads = checkpoint.QueryHeads, shared = heads / checkpoint.KeyValueHeads;
        double[][] queries, keys, values;
        if (IsLlama)
        {
            queries = [.. inputs.Select((x, position) => Turn(LinearOf($"{at}.self_attn.q_proj", x), position))];
            keys = [.. inputs.Select((x, position) => Turn(LinearOf($"{at}.self_attn.k_proj", x), position))];
            values = [.. inputs.Select(x => LinearOf($"{at}.self_attn.v_proj", x))];
        }
        else
        {
            double[][] fused = [.. inputs.Select(x => Conv1D($"{at}.attn.c_attn", x))];
            queries = [.. fused.Select(row => row[..Hidden])];
            keys = [.. fused.Select(row => row[Hidden..(2 * Hidden)])];
            values = [.. fused.Select(row => row[(2 * Hidden)..])];
        }

        double scale = Says("scale_attn_weights", true) ? 1 / Math.Sqrt(HeadDim) : 1;
        if (Says("scale_attn_by_inverse_layer_idx", false)) scale /= layer + 1;
        var outputs = new double[inputs.Length][];
        for (int i = 0; i < inputs.Length; i++)
        {
            var row = new double[heads * HeadDim];
            for (int head = 0; head < heads; head++)
            {
                int from = head / shared * HeadDim;
                double[] weights = [.. Enumerable.Range(0, i + 1).Select(j => Math.Exp(scale * Dot(queries[i], head * HeadDim, keys[j], from)))];
                double total = weights.Sum();
                for (int j = 0; j <= i; j++)
                    for (int c = 0; c < HeadDim; c++) row[head * HeadDim + c] += weights[j] / total * values[j][from + c];
            }

            outputs[i] = IsLlama ? LinearOf($"{at}.self_attn.o_proj", row) : Conv1D($"{at}.attn.c_proj", row);
        }

        return outputs;
    }

    private double[] FeedForward(string at, double[] x)
    {
        if (IsLlama)
        {
            double[] gate = LinearOf($"{at}.mlp.gate_proj", x), up = LinearOf($"{at}.mlp.up_proj", x);
            return LinearOf($"{at}.mlp.down_proj", [.. gate.Select((g, i) => g / (1 + Math.Exp(-g)) * up[i])]);
        }

        bool exact = checkpoint.Config.TryGetValue("activation_function", out object? name) && (string)name! == "gelu";
        return Conv1D($"{at}.mlp.c_proj", [.. Conv1D($"{at}.mlp.c_fc", x).Select(c => exact ? Gelu(c) : GeluNew(c))]);
    }

    private static double GeluNew(double x) => x / 2 * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));

    // Φ by summing its density in trapezoids: slow, and right to 1e-6.
    private static double Gelu(double x)
    {
        const int Steps = 600;
        double sum = 0, step = x / Steps;
        for (int i = 0; i <= Steps; i++) sum += Math.Exp(-i * step * (i * step) / 2) * (i is 0 or Steps ? 0.5 : 1);
        return x * (0.5 + sum * step / Math.Sqrt(2 * Math.PI));
    }

    private double[] Norm(double[] x, string name)
    {
        double[] gain = All($"{name}.weight");
        double mean = IsLlama ? 0 : x.Average(), square = x.Average(c => (c - mean) * (c - mean)), epsilon = IsLlama ? 1e-6 : 1e-5;
        double[] scaled = [.. x.Select((c, i) => (c - mean) / Math.Sqrt(square + epsilon) * gain[i])];
        return IsLlama ? scaled : Sum(scaled, All($"{name}.bias"));
    }

    private double[] Turn(double[] x, int position)
    {
        var turned = new double[x.Length];
        for (int i = 0; i < x.Length; i++)
        {
            int c = i % HeadDim, half = HeadDim / 2, pair = c % half;
            double angle = position * frequency(position, pair);
            turned[i] = x[i] * Math.Cos(angle) + (c < half ? -x[i + half] : x[i - half]) * Math.Sin(angle);
        }

        return turned;
    }

    private bool Says(string key, bool standard) => checkpoint.Config.TryGetValue(key, out object? value) ? (bool)value! : standard;

    private double[] LinearOf(string name, double[] x) => Linear(x, $"{name}.weight", checkpoint.Tensors.ContainsKey($"{name}.bias") ? $"{name}.bias" : null);

    private double[] Linear(double[] x, string weight, string? bias)
    {
        (int[] shape, float[] numbers) = checkpoint.Tensors[weight];
        var y = new double[shape[0]];
        for (int o = 0; o < y.Length; o++)
            for (int c = 0; c < x.Length; c++) y[o] += numbers[o * x.Length + c] * x[c];
        return bias is null ? y : Sum(y, All(bias));
    }

    private double[] Conv1D(string name, double[] x)
    {
        (int[] shape, float[] numbers) = checkpoint.Tensors[$"{name}.weight"];
        double[] y = All($"{name}.bias");
        for (int c = 0; c < x.Length; c++)
            for (int o = 0; o < y.Length; o++) y[o] += numbers[c * shape[1] + o] * x[c];
        return y;
    }

    private double[] All(string name) => Array.ConvertAll(checkpoint.Tensors[name].Numbers, x => (double)x);

    private double[] Row(string table, int row) => Array.ConvertAll(checkpoint.Tensors[table].Numbers[(row * Hidden)..((row + 1) * Hidden)], x => (double)x);

    private static double Dot(double[] a, int fromA, double[] b, int fromB)
    {
        double sum = 0;
        for (int c = 0; c < HeadDim; c++) sum += a[fromA + c] * b[fromB + c];
        return sum;
    }

    private static double[] Sum(double[] a, double[] b) => [.. a.Select((x, i) => x + b[i])];
}
