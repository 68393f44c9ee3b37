using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>Work that is cut into parts: each part writes its own outputs, so it does not matter which thread takes which.</summary>
internal interface IJob
{
    /// <summary>Does one part.</summary>
    /// <param name="part">Which part.</param>
    /// <param name="worker">Which worker does it, for its scratch memory.</param>
    void Run(int part, int worker);
}

/// <summary>A pool whose threads spin briefly for the next job, then park; starting a job allocates nothing.</summary>
internal sealed unsafe partial class CpuThreads : IDisposable
{
    private const int SpinsBeforeParking = 2000;            // some tens of microseconds: the gap between two kernels of a model
    private const int Open = 1 << 30;                       // in the gate, beside the number of workers inside
    private readonly Worker[] _workers;
    private readonly float*[] _scratch;                     // one per worker, then the shared one
    private readonly nint[] _scratchSize;
    private delegate*<void*, int, int, void> _body;
    private void* _job;
    private int _parts;
    private int _next;
    private int _gate;
    private int _generation;
    private bool _stop;
    private ExceptionDispatchInfo? _error;

    /// <summary>Starts the pool.</summary>
    /// <param name="count">Threads, the caller of <see cref="For"/> included; 0: one per core.</param>
    /// <param name="pin">True: each worker stays on one of the process's cores (the caller's thread is not ours and stays where it is).</param>
    public CpuThreads(int count, bool pin)
    {
        Count = count > 0 ? count : Environment.ProcessorCount;
        _workers = new Worker[Count - 1];
        _scratch = new float*[Count + 1];
        _scratchSize = new nint[Count + 1];
        for (int i = 0; i < _workers.Length; i++) _workers[i] = new Worker(this, i + 1, pin);
    }

    /// <summary>Number of threads that work, the caller's included.</summary>
    public int Count { get; }

    /// <summary>True where the system did not let a worker be pinned.</summary>
    public bool PinRefused { get; private set; }

    /// <summary>Runs all parts of a job and returns when they are done; rethrows what a part threw.</summary>
    public void For<TJob>(int parts, ref TJob job) where TJob : struct, IJob
    {
        if (Count == 1 || parts <= 1)
        {
            for (int i = 0; i < parts; i++) job.Run(i, 0);
            return;
        }

        _body = &Invoke<TJob>;
        _job = Unsafe.AsPointer(ref job);                   // lives on the caller's stack until all are done
        _parts = parts;
        _next = 0;
        _error = null;
        Volatile.Write(ref _gate, Open);
        Interlocked.Increment(ref _generation);
        foreach (Worker worker in _workers) worker.Wake();
        Take(0);
        // No part is left to take. Who has not come in by now (its core may be busy elsewhere) need not come; who has is waited for.
        Interlocked.And(ref _gate, ~Open);
        var wait = new SpinWait();
        while (Volatile.Read(ref _gate) != 0) wait.SpinOnce(sleep1Threshold: -1);
        _job = null;
        _error?.Throw();
    }

    /// <summary>A worker's scratch memory, 64-byte aligned, contents undefined; grows, so a steady step allocates nothing.</summary>
    public float* Scratch(int worker, nint floats)
    {
        if (_scratchSize[worker] < floats)
        {
            NativeMemory.AlignedFree(_scratch[worker]);
            _scratchSize[worker] = 0;
            _scratch[worker] = null;
            _scratch[worker] = (float*)HostMemory.Allocate((nuint)(floats + 16) * sizeof(float));
            _scratchSize[worker] = floats;
        }

        return _scratch[worker];
    }

    /// <summary>Scratch memory that the caller fills before a job, for all its workers to read.</summary>
    public float* Shared(nint floats) => Scratch(Count, floats);

    public void Dispose()
    {
        _stop = true;
        Interlocked.Increment(ref _generation);
        foreach (Worker worker in _workers) worker.Wake();
        foreach (Worker worker in _workers) worker.Dispose();
        for (int i = 0; i <= Count; i++)
        {
            NativeMemory.AlignedFree(_scratch[i]);
            _scratch[i] = null;
            _scratchSize[i] = 0;
        }
    }

    private static void Invoke<TJob>(void* job, int part, int worker) where TJob : struct, IJob => Unsafe.AsRef<TJob>(job).Run(part, worker);

    /// <summary>A worker joins the job that is open, if one still is.</summary>
    private void Help(int worker)
    {
        int gate = Volatile.Read(ref _gate);
        while ((gate & Open) != 0)
        {
            int before = Interlocked.CompareExchange(ref _gate, gate + 1, gate);
            if (before == gate)
            {
                Take(worker);
                Interlocked.Decrement(ref _gate);
                return;
            }

            gate = before;
        }
    }

    private void Take(int worker)
    {
        try
        {
            int part;
            while ((part = Interlocked.Increment(ref _next) - 1) < _parts) _body(_job, part, worker);
        }
        catch (Exception e)
        {
            _error = ExceptionDispatchInfo.Capture(e);      // any one of them; the step fails as a whole
            Volatile.Write(ref _next, _parts);
        }
    }

    private sealed partial class Worker : IDisposable
    {
        private readonly CpuThreads _pool;
        private readonly int _index;
        private readonly bool _pin;
        private readonly AutoResetEvent _signal = new(false);
        private readonly Thread _thread;
        private int _parked;

        public Worker(CpuThreads pool, int index, bool pin)
        {
            _pool = pool;
            _index = index;
            _pin = pin;
            _thread = new Thread(Loop) { IsBackground = true, Name = $"treeline-{index}" };
            _thread.Start();
        }

        public void Wake()
        {
            if (Volatile.Read(ref _parked) != 0) _signal.Set();
        }

        public void Dispose()
        {
            _thread.Join();
            _signal.Dispose();
        }

        private void Loop()
        {
            if (_pin && !Pin(_index)) _pool.PinRefused = true;
            int seen = 0;
            while (true)
            {
                WaitForJob(seen);
                seen = Volatile.Read(ref _pool._generation);
                if (_pool._stop) return;
                _pool.Help(_index);
            }
        }

        private void WaitForJob(int seen)
        {
            for (int i = 0; i < SpinsBeforeParking; i++)
            {
                if (Volatile.Read(ref _pool._generation) != seen) return;
                Thread.SpinWait(4);
            }

            Interlocked.Exchange(ref _parked, 1);           // full fence: Wake sees it, or we see the new generation
            while (Volatile.Read(ref _pool._generation) == seen) _signal.WaitOne();
            Interlocked.Exchange(ref _parked, 0);
        }

        /// <summary>Keeps the calling thread on one of the cores that the process may use; false where the system does not let it.</summary>
        private static bool Pin(int index)
        {
            if (OperatingSystem.IsLinux())
            {
                const int Bytes = 128;                      // cpu_set_t
                byte* mask = stackalloc byte[Bytes];
                var allowed = new Span<byte>(mask, Bytes);
                allowed.Clear();
                if (sched_getaffinity(0, Bytes, mask) != 0) return false;
                int skip = index % Environment.ProcessorCount, chosen = -1;
                for (int core = 0; core < 8 * Bytes && chosen < 0; core++)
                    if ((mask[core >> 3] >> (core & 7) & 1) != 0 && skip-- == 0) chosen = core;
                if (chosen < 0) return false;
                allowed.Clear();
                mask[chosen >> 3] = (byte)(1 << (chosen & 7));
                return sched_setaffinity(0, Bytes, mask) == 0;
            }

            return OperatingSystem.IsWindows() && Environment.ProcessorCount <= 64
                && SetThreadAffinityMask(GetCurrentThread(), (nuint)1 << (index % Environment.ProcessorCount)) != 0;
        }

        [LibraryImport("libc")]
        private static partial int sched_getaffinity(int thread, nuint size, byte* mask);

        [LibraryImport("libc")]
        private static partial int sched_setaffinity(int thread, nuint size, byte* mask);

        [LibraryImport("kernel32")]
        private static partial nint GetCurrentThread();

        [LibraryImport("kernel32")]
        private static partial nuint SetThreadAffinityMask(nint thread, nuint mask);
    }
}
