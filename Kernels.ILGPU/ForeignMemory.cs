using global::ILGPU;
using global::ILGPU.Runtime;
using global::ILGPU.Runtime.CPU;
using global::ILGPU.Runtime.Cuda;
using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Memory that somebody else allocated on the accelerator's own context; never freed here.</summary>
internal sealed class ForeignMemory : MemoryBuffer
{
    /// <summary>Sees an address (host, CUDA) or a <c>cl_mem</c> as ILGPU memory.</summary>
    public ForeignMemory(Accelerator accelerator, nint pointer, long bytes) : base(accelerator, bytes, sizeof(byte)) => NativePtr = pointer;

    /// <summary>All of it.</summary>
    public ArrayView<byte> View => AsArrayView<byte>(0, LengthInBytes);

    protected override void MemSet(AcceleratorStream stream, byte value, in ArrayView<byte> targetView)
    {
        switch (Accelerator)
        {
            case CudaAccelerator: CudaMemoryBuffer.CudaMemSet((CudaStream)stream, value, targetView); break;
            case CLAccelerator: CLMemoryBuffer.CLMemSet((CLStream)stream, value, targetView); break;
            default: CPUMemoryBuffer.CPUMemSet(targetView.LoadEffectiveAddressAsPtr(), value, 0, targetView.LengthInBytes); break;
        }
    }

    protected override void CopyFrom(AcceleratorStream stream, in ArrayView<byte> sourceView, in ArrayView<byte> targetView) => Copy(stream, sourceView, targetView);

    protected override void CopyTo(AcceleratorStream stream, in ArrayView<byte> sourceView, in ArrayView<byte> targetView) => Copy(stream, sourceView, targetView);

    protected override void DisposeAcceleratorObject(bool disposing) { }

    private void Copy(AcceleratorStream stream, in ArrayView<byte> from, in ArrayView<byte> to)
    {
        switch (Accelerator)
        {
            case CudaAccelerator: CudaMemoryBuffer.CudaCopy((CudaStream)stream, from, to); break;
            case CLAccelerator: CLMemoryBuffer.CLCopy((CLStream)stream, from, to); break;
            default: CPUMemoryBuffer.CPUCopy(stream, from, to); break;
        }
    }
}
