namespace Treeline.Kernels;

public partial class CpuBackend
{
    /// <inheritdoc/>
    protected internal override LayerState CreateSoftmaxLayer(AttentionState owner, int index) => new SoftmaxLayer(this, owner, index);

    /// <inheritdoc/>
    protected override void SoftmaxAttendCore(AttentionLayer layer, LayerState state, Step step, in AttentionInputs inputs, DeviceTensor output)
    {
        ArgumentNullException.ThrowIfNull(layer);
        ArgumentNullException.ThrowIfNull(step);
        var cache = (SoftmaxLayer)state;
        for (int i = 0; i < step.Entries; i++)
            if (step[i].Moves) cache.MakeWritable(step[i].Slot, cache.Owner.Length(step[i].Slot), cache.Owner.Length(step[i].Slot) + step[i].Count);

        var call = new SoftmaxCall(layer, cache, step, inputs, output);
        var store = new SoftmaxStoreJob(Kernels, call);
        AttentionWork.Run(Threads, step.Entries * call.Spec.KeyValueHeads, (long)step.Tokens * call.Spec.KeyValueHeads * (call.Spec.HeadDim + call.Spec.ValueDim), ref store);
        var answer = new SoftmaxAnswerJob(this, call);
        AttentionWork.Run(Threads, call.Parts, call.Work, ref answer);
    }

    /// <summary>Stores the keys and values of one entry's head: in its pages where it moves, else as pending rows.</summary>
    private readonly struct SoftmaxStoreJob(CpuKernels kernels, SoftmaxCall call) : IJob
    {
        private readonly SoftmaxCall _call = call;

        public void Run(int part, int worker) => kernels.SoftmaxStore(_call, _call.Step[part / _call.Spec.KeyValueHeads], part % _call.Spec.KeyValueHeads);
    }

    private readonly unsafe struct SoftmaxAnswerJob(CpuBackend backend, SoftmaxCall call) : IJob
    {
        private readonly SoftmaxCall _call = call;

        public void Run(int part, int worker)
        {
            StepEntry entry = _call.Find(part, out int head, out int first);
            backend.Kernels.SoftmaxAnswer(_call, entry, head, first, backend.Threads.Scratch(worker, _call.ScratchFloats));
        }
    }
}
