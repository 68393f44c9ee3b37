using Treeline.Kernels;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>The pool that kernels run on: every part once, nothing left running when a job returns, also with more threads than cores.</summary>
public sealed class CpuThreadsTests : IDisposable
{
    private const int Parts = 23;

    private readonly CpuThreads _threads = new(2 * Environment.ProcessorCount + 1, pin: false);

    public void Dispose() => _threads.Dispose();

    [Fact]
    public void Every_part_is_done_once_and_before_the_job_returns()
    {
        var done = new int[Parts];
        for (int round = 1; round <= 3000; round++)
        {
            var job = new Counting(done, slow: round % 97 == 0);
            _threads.For(Parts, ref job);
            foreach (int count in done) Assert.Equal(round, count);
        }
    }

    [Fact]
    public void What_a_part_throws_is_thrown_and_the_next_job_runs()
    {
        for (int round = 0; round < 200; round++)
        {
            var failing = new Failing(round % Parts);
            Assert.Equal($"part {round % Parts}", Assert.Throws<FormatException>(() => _threads.For(Parts, ref failing)).Message);
            var done = new int[Parts];
            var job = new Counting(done, slow: false);
            _threads.For(Parts, ref job);
            Assert.All(done, count => Assert.Equal(1, count));
        }
    }

    private readonly struct Counting(int[] done, bool slow) : IJob
    {
        public void Run(int part, int worker)
        {
            if (slow) Thread.Sleep(1);                      // long enough for every worker to come in
            Interlocked.Increment(ref done[part]);
        }
    }

    private readonly struct Failing(int at) : IJob
    {
        public void Run(int part, int worker)
        {
            if (part == at) throw new FormatException($"part {part}");
        }
    }
}
