using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text.Json;
using Treeline.Kernels;

namespace Treeline.Cli.Commands;

/// <summary>What there is to compute with.</summary>
internal sealed class InfoCommand : ToolCommand<AnswerSettings>
{
    private sealed record Opened(string Name, string Description, bool IsGpu, bool IsLossless, string Products, IReadOnlyList<(string Attention, bool IsSupported, string How)> Attentions, string WhyNot);

    private static int VectorBits =>
        Vector512.IsHardwareAccelerated ? 512 : Vector256.IsHardwareAccelerated ? 256 : Vector128.IsHardwareAccelerated ? 128 : 0;

    protected override int Run(AnswerSettings settings, Terminal terminal)
    {
        List<Opened> backends = [.. Backends.Discover().Select(Open)];
        string auto = Backends.Choose(out string why);
        if (settings.Json) Json.Write(terminal.Out, json => Write(json, backends, auto, why));
        else Print(terminal.Out, backends, auto, why);
        return ExitCodes.Success;
    }

    private static Opened Open(BackendInfo info)
    {
        if (!info.IsUsable) return new Opened(info.Name, info.Description, info.IsGpu, false, "", [], info.WhyNot);
        using KernelBackend backend = Backends.Open(info.Name);
        return new Opened(info.Name, backend.Description, info.IsGpu, backend.IsLosslessToTheBit, backend.Describe(WeightForm.Float32),
            [.. AttentionKinds.Of(8, 2, 64, 64).Select(kind => (kind.Name, backend.Supports(kind.Spec, out _), backend.Describe(kind.Spec)))], "");
    }

    private static void Print(TextWriter output, List<Opened> backends, string auto, string why)
    {
        output.WriteLine($"treeline {Program.Version}, {RuntimeInformation.FrameworkDescription}, {RuntimeInformation.RuntimeIdentifier}");
        output.WriteLine($"machine: {Environment.ProcessorCount} cores, {(VectorBits == 0 ? "no vector registers in use" : $"{VectorBits}-bit vectors")}");
        output.WriteLine($"default: {Backends.DefaultName}{(Environment.GetEnvironmentVariable(Backends.Variable) is { Length: > 0 } ? $" ({Backends.Variable})" : "")}");
        output.WriteLine($"auto: {auto} ({why})");
        foreach (Opened backend in backends)
        {
            output.WriteLine();
            output.WriteLine($"{backend.Name}: {backend.Description}");
            if (backend.WhyNot.Length > 0)
            {
                output.WriteLine($"  cannot be used: {backend.WhyNot}");
                continue;
            }

            output.WriteLine(backend.IsLossless ? "  lossless to the bit: tree decoding gives the text of one token at a time, always" : "  not lossless to the bit");
            output.WriteLine($"  products of float32: {backend.Products}");
            Columns.Write(output, [.. backend.Attentions.Select(attention => new[] { $"  {attention.Attention}", attention.How })]);
        }
    }

    private static void Write(Utf8JsonWriter json, List<Opened> backends, string auto, string why)
    {
        json.WriteString("version", Program.Version);
        json.WriteString("runtime", RuntimeInformation.FrameworkDescription);
        json.WriteString("platform", RuntimeInformation.RuntimeIdentifier);
        json.WriteNumber("cores", Environment.ProcessorCount);
        json.WriteNumber("vector_bits", VectorBits);
        json.WriteString("default", Backends.DefaultName);
        json.WriteStartObject("auto");
        json.WriteString("backend", auto);
        json.WriteString("why", why);
        json.WriteEndObject();
        json.WriteStartArray("backends");
        foreach (Opened backend in backends)
        {
            json.WriteStartObject();
            json.WriteString("name", backend.Name);
            json.WriteString("description", backend.Description);
            json.WriteBoolean("usable", backend.WhyNot.Length == 0);
            json.WriteString("why_not", backend.WhyNot);
            json.WriteBoolean("gpu", backend.IsGpu);
            json.WriteBoolean("lossless_to_the_bit", backend.IsLossless);
            json.WriteString("float32_products", backend.Products);
            json.WriteStartArray("attentions");
            foreach ((string attention, bool isSupported, string how) in backend.Attentions)
            {
                json.WriteStartObject();
                json.WriteString("name", attention);
                json.WriteBoolean("supported", isSupported);
                json.WriteString("kernel", how);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }
}
