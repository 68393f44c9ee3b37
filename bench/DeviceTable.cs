using System.Diagnostics;
using System.Globalization;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>A device's large kernels next to the CPU backend's, as shares of the processor's multiply-add peak: for OpenCL on a CPU, where that is the limit.</summary>
internal static class DeviceTable
{
    private const int Size = 768, Heads = 12, HeadDim = 64, GroupSize = 64, Taps = 32, Tokens = 512, Turns = 21;

    public static int Print(string name)
    {
        using KernelBackend device = Backends.Open(name), cpu = Backends.Open("cpu");
        Console.WriteLine($"{device.Name}: {device.Description}");
        Console.WriteLine($"{cpu.Name}: {cpu.Description}");
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"shares of the multiply-add peak, medians of 21 interleaved turns{"",-3} {device.Name,10} {cpu.Name,10}"));
        foreach (WeightForm form in (WeightForm[])[WeightForm.Float32, WeightForm.Int8, WeightForm.Int4])
            foreach (int rows in (int[])[1, 8, 64, Size])
                Line($"linear {form}, {rows} x {Size} x {Size}", Product(device, form, rows), Product(cpu, form, rows));
        Line($"attention, augmented, {Heads} x {HeadDim}, {Tokens} tokens", Attention(device), Attention(cpu));
        return 0;
    }

    private static double Product(KernelBackend backend, WeightForm form, int rows)
    {
        using DeviceTensor weight = backend.Allocate(ElementType.Float32, Size, Size), input = backend.Allocate(ElementType.Float32, rows, Size), output = backend.Allocate(ElementType.Float32, rows, Size);
        using WeightMatrix packed = backend.Pack(weight, form);
        void Run()
        {
            backend.Linear(input, packed, null, output);
            backend.Synchronize();
        }

        return Share(2.0 * rows * Size * Size, First($"{backend.Name}, linear {form} of {rows} rows", Run));
    }

    private static double Attention(KernelBackend backend)
    {
        using var load = new AttentionLoad(backend, AttentionSpec.Augmented(Heads, Heads, HeadDim, GroupSize, Taps), 0);
        // A token's scores and local sum reach half a group on average; then the query times S, its own part of S, and the taps.
        double work = 2.0 * Tokens * Heads * HeadDim * (2 * (GroupSize + 1) / 2.0 + 2 * HeadDim + Taps);
        return Share(work, First($"{backend.Name}, attention", () => load.Advance(Tokens)));
    }

    private static Action First(string what, Action run)
    {
        long began = Stopwatch.GetTimestamp();
        run();
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  first use of {what}: {Stopwatch.GetElapsedTime(began).TotalSeconds:f2} s"));
        return run;
    }

    private static double Share(double work, Action run)
    {
        var shares = new double[Turns];
        for (int i = 0; i < Turns; i++)
        {
            double seconds = Seconds(run, 1 + (int)(1e9 / work));
            Thread.Sleep(5);                                // a backend's threads look out for more work for a while: the limit is measured without them
            double peak = Machine.MultiplyAdd() / Seconds(() => Machine.MultiplyAdd(), 20);
            shares[i] = work / seconds / peak;
        }

        Array.Sort(shares);
        return shares[Turns / 2];
    }

    private static double Seconds(Action action, int runs)
    {
        long began = Stopwatch.GetTimestamp();
        for (int i = 0; i < runs; i++) action();
        return Stopwatch.GetElapsedTime(began).TotalSeconds / runs;
    }

    private static void Line(string what, double device, double cpu) =>
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {what,-58} {device,10:f2} {cpu,10:f2}"));
}
