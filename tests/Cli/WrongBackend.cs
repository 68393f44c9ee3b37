using System.Runtime.InteropServices;
using Treeline.Kernels;

namespace Treeline.Tests.Cli;

/// <summary>Backends that compute as <c>cpu</c> does but for one thing; opened by names such as <c>wrong:Add</c>.</summary>
internal sealed class WrongBackend : CpuBackend
{
    private readonly string _wrong;

    private WrongBackend(string wrong, BackendOptions options) : base(options) => _wrong = wrong;

    public override string Name => $"wrong:{_wrong}";

    /// <summary>Makes the names known; they are listed nowhere.</summary>
    public static void Register() => Backends.Register(new Provider());

    protected override void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output)
    {
        if (_wrong == "missing") throw Unsupported("Add");
        if (_wrong == "idle") return;
        base.AddCore(left, right, output);
        Spoil("Add", output);
    }

    protected override void LinearCore(DeviceTensor input, WeightMatrix weight, DeviceTensor? bias, DeviceTensor output)
    {
        base.LinearCore(input, weight, bias, output);
        if (input.Rows == 1) Spoil("Linear", output);
    }

    protected override void ArgMaxCore(DeviceTensor logits, DeviceTensor tokens)
    {
        base.ArgMaxCore(logits, tokens);
        Spoil("ArgMax", tokens);
    }

    protected override void TopKCore(DeviceTensor logits, DeviceTensor values, DeviceTensor indices)
    {
        base.TopKCore(logits, values, indices);
        Spoil("TopK", indices);
    }

    protected override void AcceptCore(Step step, DeviceTensor tokens, DeviceTensor chosen, DeviceTensor accepted, DeviceTensor next)
    {
        base.AcceptCore(step, tokens, chosen, accepted, next);
        Spoil("Accept", next);
    }

    protected override void SoftmaxAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        base.SoftmaxAttendCore(layer, state, step, inputs, output);
        if (!step[0].Moves) Spoil("SoftmaxAttend", output);
    }

    protected override void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        base.FlashAttendCore(layer, state, step, inputs, output);
        if (layer.Spec.Norm == OutputNorm.Castling) Spoil("FlashAttend", output);
        if (state.Index == 2) Spoil("layer", output);
    }

    /// <summary>Where this op is the wrong one: each number becomes another, by little, or for a layer by much.</summary>
    private void Spoil(string op, DeviceTensor output)
    {
        if (op != _wrong) return;
        var bytes = new byte[output.Count * output.Type.Size()];
        ReadCore(output, bytes);
        if (output.Type == ElementType.Int32)
            foreach (ref int number in MemoryMarshal.Cast<byte, int>(bytes.AsSpan())) number++;
        else
            foreach (ref float number in MemoryMarshal.Cast<byte, float>(bytes.AsSpan())) number += op == "layer" ? 1 : 1e-3f;
        WriteCore(output, bytes);
    }

    private sealed class Provider : IBackendProvider
    {
        public string Family => "wrong";

        public IEnumerable<BackendInfo> Discover() => [];

        public KernelBackend Open(string name, BackendOptions options) => new WrongBackend(name.Split(':')[1], options);
    }
}
