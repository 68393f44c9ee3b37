namespace Treeline.GpuCheck;

/// <summary>Checks a device of this machine, as docs/gpu-check.md explains; or, with <c>ptx-report REPOSITORY</c>, writes what the assembler makes of the kernels.</summary>
internal static class Program
{
    private static int Main(string[] args) => args switch
    {
        ["measure", var backend, var file] => MicroBenchmarks.Run(backend, file),
        ["ptx-report", var repository] => PtxReport.Write(repository),
        _ => Check.Run(args),
    };
}
