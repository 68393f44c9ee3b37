using System.Diagnostics;
using System.Runtime.InteropServices;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;

namespace Treeline.GpuCheck;

/// <summary>Times work that a backend queues, and the limit that it is compared with.</summary>
internal class DeviceMeter : IDisposable
{
    private const int Warmups = 2, Turns = 11;
    private const double Slow = 1;
    private const double TurnSeconds = 0.02;                // long against a clock's resolution and the end of a queue
    private protected const long CopyBytes = 256L << 20;    // beyond any cache

    private readonly KernelBackend _backend;

    private protected DeviceMeter(KernelBackend backend) => _backend = backend;

    /// <summary>The meter for a backend.</summary>
    public static DeviceMeter Of(KernelBackend backend) => backend is IlgpuBackend ilgpu ? new IlgpuMeter(ilgpu) : new DeviceMeter(backend);

    /// <summary>What the times are taken with.</summary>
    public virtual string Clock => "host clock, until the device is done";

    /// <summary>Median time of one call, over turns of many.</summary>
    public double Seconds(Action call)
    {
        Turn(call, Warmups);
        double once = Turn(call, 1);
        if (once > Slow) return once;                       // a device so slow is not worth the wait for a median
        int calls = Math.Clamp((int)(TurnSeconds / once), 1, 1000);
        var times = new double[Turns];
        for (int i = 0; i < Turns; i++) times[i] = Turn(call, calls) / calls;
        Array.Sort(times);
        return times[Turns / 2];
    }

    /// <summary>Bytes a second that a copy reads and writes together.</summary>
    public virtual unsafe double CopiedBytesPerSecond()
    {
        void* from = NativeMemory.AllocZeroed((nuint)CopyBytes), to = NativeMemory.AllocZeroed((nuint)CopyBytes);
        int parts = Environment.ProcessorCount;
        double seconds = Seconds(() => Parallel.For(0, parts, part =>
        {
            long at = CopyBytes / parts * part;
            Buffer.MemoryCopy((byte*)from + at, (byte*)to + at, CopyBytes / parts, CopyBytes / parts);
        }));
        NativeMemory.Free(from);
        NativeMemory.Free(to);
        return 2 * CopyBytes / seconds;
    }

    /// <summary>Time of so many calls, one after the other.</summary>
    private protected virtual double Turn(Action call, int calls)
    {
        long began = Stopwatch.GetTimestamp();
        for (int i = 0; i < calls; i++) call();
        _backend.Synchronize();
        return Stopwatch.GetElapsedTime(began).TotalSeconds;
    }

    /// <summary>Gives back what the device lent.</summary>
    public virtual void Dispose() { }
}
