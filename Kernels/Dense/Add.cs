namespace Treeline.Kernels;

public abstract partial class KernelBackend
{
    /// <summary>Sum of two tensors, elementwise: the residual.</summary>
    /// <remarks>Output may be either input.</remarks>
    /// <param name="left"><c>[n, channels]</c>.</param>
    /// <param name="right"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    /// <exception cref="ArgumentException">A shape, type or device does not fit; nothing has been touched.</exception>
    public void Add(DeviceTensor left, DeviceTensor right, DeviceTensor output)
    {
        using Call call = Enter(nameof(Add));
        left.Require(this, FloatInputs, [-1, -1]);
        right.Require(this, FloatInputs, [left.Rows, left.RowLength]);
        output.Require(this, FloatOutputs, [left.Rows, left.RowLength]);
        AddCore(left, right, output);
    }

    /// <summary>The kernel of <see cref="Add"/>; the arguments have been checked.</summary>
    /// <param name="left"><c>[n, channels]</c>.</param>
    /// <param name="right"><c>[n, channels]</c>.</param>
    /// <param name="output">Receives <c>[n, channels]</c>.</param>
    protected virtual void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output) => throw Unsupported(nameof(Add));
}
