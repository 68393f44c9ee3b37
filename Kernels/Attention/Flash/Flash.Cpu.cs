namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected internal override LayerState CreateFlashLayer(AttentionState owner, int index) => new FlashLayer(this, owner, index);

    /// <inheritdoc/>
    protected override void FlashAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        var job = new FlashJob(this, new FlashCall(layer, (FlashLayer)state, step, inputs, output));
        AttentionWork.Run(Threads, step.Entries * layer.Spec.KeyValueHeads, job.Call.Work, ref job);
    }

    /// <summary>A part is one entry's key/value head with the query heads that read it.</summary>
    private readonly unsafe struct FlashJob(CpuBackend backend, FlashCall call) : IJob
    {
        public readonly FlashCall Call = call;

        public void Run(int part, int worker)
        {
            StepEntry entry = Call.Step[part / Call.Spec.KeyValueHeads];
            int head = part % Call.Spec.KeyValueHeads;
            if (entry.Count == 0) return;
            float* scratch = backend.Threads.Scratch(worker, Call.ScratchFloats);
            if (entry.Moves) backend.Kernels.FlashAdvance(Call, entry, head, scratch);
            else backend.Kernels.FlashVerify(Call, entry, head, scratch);
        }
    }
}
