using System.Runtime.CompilerServices;
using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>One call at a time on a backend, and nothing is given back under it.</summary>
public class CallTests
{
    [Fact]
    public async Task Calls_that_overlap_are_refused_and_memory_is_given_back_after_the_call_under_way()
    {
        using var backend = new SlowBackend();
        DeviceTensor tensor = backend.Allocate(ElementType.Float32, 1, 1);
        using var reached = new ManualResetEventSlim();
        using var release = new ManualResetEventSlim();
        backend.During = () =>
        {
            reached.Set();
            release.Wait(TestContext.Current.CancellationToken);
        };
        Task call = Task.Run(() => backend.Add(tensor, tensor, tensor), TestContext.Current.CancellationToken);
        reached.Wait(TestContext.Current.CancellationToken);
        Assert.Equal("slow: Synchronize overlaps another call; calls on one backend must follow each other", Assert.Throws<InvalidOperationException>(backend.Synchronize).Message);

        Task[] disposals = [Task.Run(tensor.Dispose, TestContext.Current.CancellationToken), Task.Run(backend.Dispose, TestContext.Current.CancellationToken)];
        await Task.Delay(50, TestContext.Current.CancellationToken);
        Assert.All(disposals, disposal => Assert.False(disposal.IsCompleted));
        Assert.False(tensor.Buffer.IsDisposed);
        release.Set();
        await call;
        await Task.WhenAll(disposals);
        Assert.True(tensor.Buffer.IsDisposed);
        Assert.Throws<ObjectDisposedException>(backend.Synchronize);
    }

    [Fact]
    public void Memory_may_be_given_back_inside_a_call_of_the_same_thread()
    {
        using var backend = new SlowBackend();
        DeviceTensor tensor = backend.Allocate(ElementType.Float32, 1, 1), other = backend.Allocate(ElementType.Float32, 3);
        backend.During = () =>
        {
            other.Dispose();
            Assert.Throws<InvalidOperationException>(backend.Synchronize);
        };
        backend.Add(tensor, tensor, tensor);
        Assert.True(other.Buffer.IsDisposed);
        backend.Synchronize();
    }

    // The runtime sees a last use where the code ends to mention a tensor; kernels go on with its memory.
    [Fact]
    public void Tensors_that_nobody_refers_to_any_more_live_until_the_call_ends()
    {
        using var backend = new SlowBackend();
        for (int i = 0; i < 5; i++)                         // until the runtime has optimised the way through, in the background
        {
            for (int call = 0; call < 50; call++) AddNew(backend);
            Thread.Sleep(150);
        }

        bool alive = false;
        backend.During = () =>
        {
            GC.Collect();
            alive = backend.Left!.IsAlive;
        };
        AddNew(backend);
        Assert.True(alive);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddNew(SlowBackend backend)
    {
        DeviceTensor tensor = backend.Allocate(ElementType.Float32, 1, 1);
        backend.Add(tensor, tensor, tensor);
    }

    /// <summary>A backend with one op, which does what the test wants.</summary>
    private sealed class SlowBackend : KernelBackend
    {
        public Action During { get; set; } = () => { };

        public WeakReference? Left { get; private set; }

        public override string Name => "slow";

        public override string Description => "";

        protected override DeviceBuffer AllocateCore(long bytes) => new HostBuffer(this, bytes);

        protected override DeviceBuffer WrapCore(nint pointer, long bytes) => throw Unsupported(nameof(Wrap));

        protected override void WriteCore(DeviceTensor to, ReadOnlySpan<byte> from) => throw Unsupported(nameof(Write));

        protected override void ReadCore(DeviceTensor from, Span<byte> to) => throw Unsupported(nameof(Read));

        protected override bool SupportsCore(AttentionSpec spec, out string why)
        {
            why = "";
            return true;
        }

        protected override AttentionState CreateStateCore(IReadOnlyList<AttentionSpec> specs, int slots, int capacity) => throw Unsupported(nameof(CreateState));

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        protected override void AddCore(DeviceTensor left, DeviceTensor right, DeviceTensor output)
        {
            Left = new WeakReference(left.Buffer);
            During();
        }

        protected override void Dispose(bool disposing) { }
    }
}
