// Measures. `quick` prints ratios against the machine's own limits in under a minute, `memory` follows one long sequence, `device` compares a device with the CPU backend,
// `compile` tells what a model's kernels take until they are ready, everything else goes to BenchmarkDotNet (`--list flat`, `--filter '*Linear*'`).
using BenchmarkDotNet.Running;
using Treeline.Bench;

switch (args)
{
    case [] or ["quick"]:
        QuickTable.Print();
        return 0;
    case ["memory", var model]:
        return MemoryTable.Print(model);
    case ["device", var name]:
        return DeviceTable.Print(name);
    case ["compile", var name, var model]:
        return CompileTable.Print(name, model);
    default:
        BenchmarkSwitcher.FromAssembly(typeof(LinearBench).Assembly).Run(args);
        return 0;
}
