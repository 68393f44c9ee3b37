using Xunit;

namespace Treeline.Tests.Harness;

/// <summary>What a step allocates once it is steady.</summary>
internal static class Allocations
{
    private const int Steps = 20, Rounds = 50, PauseMilliseconds = 20;

    /// <summary>Repeats a step until twenty in a row have allocated nothing on this thread; fails where that never comes.</summary>
    /// <remarks>The first rounds may allocate: buffers grow, and code that the runtime has not optimised yet boxes vectors.</remarks>
    public static void RequireNone(Action step)
    {
        long allocated = 0;
        for (int round = 0; round < Rounds; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < Steps; i++) step();
            allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            if (allocated == 0) return;
            // The runtime optimises in the background, and puts it off while the tests beside this one bring it new code.
            Thread.Sleep(PauseMilliseconds * (round + 1));
        }

        Assert.Fail($"{allocated} bytes were still allocated in the last {Steps} of {Rounds * Steps} steps");
    }
}
