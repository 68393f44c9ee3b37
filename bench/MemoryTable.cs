using System.Diagnostics;
using System.Globalization;
using Treeline.Kernels;

namespace Treeline.Bench;

/// <summary>One sequence, token by token to the 50,000th: its state, the process and the time per token as it grows.</summary>
internal static class MemoryTable
{
    private const int Window = 512;                         // tokens that a time is the mean of: whole groups
    private static readonly int[] Marks = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000];

    /// <summary>Prints the table.</summary>
    /// <param name="path">A model's folder.</param>
    /// <returns>0 where the state has not grown, else 1.</returns>
    public static int Print(string path)
    {
        using KernelBackend backend = Backends.Open("cpu");
        using CausalModel model = CausalModel.Load(path, backend);
        using AttentionState state = model.CreateState(slots: 1, capacity: Marks[^1]);
        var step = new Step();
        var random = new Random(1);
        Console.WriteLine("    token   state, bytes   process, bytes   time per token, relative");
        double first = 0;
        long firstBytes = 0, bytes = 0;                     // the most in a window: the tail of a group comes and goes
        foreach (int mark in Marks)
        {
            while (state.Length(0) < mark - Window) Feed();
            long began = Stopwatch.GetTimestamp();
            bytes = 0;
            while (state.Length(0) < mark)
            {
                Feed();
                bytes = Math.Max(bytes, state.Bytes(0));
            }

            double seconds = Stopwatch.GetElapsedTime(began).TotalSeconds / Window;
            if (mark == Marks[0]) (first, firstBytes) = (seconds, bytes);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{mark,9:n0} {bytes,14:n0} {Process(),16:n0} {seconds / first,26:f2}"));
        }

        Console.WriteLine(bytes == firstBytes ? "the state has not grown" : $"the state has grown by {bytes - firstBytes} bytes");
        return bytes == firstBytes ? 0 : 1;

        void Feed()
        {
            step.Clear();
            step.Advance(0, 1);
            model.Forward(state, step, [random.Next(model.VocabularySize)]);
        }
    }

    private static long Process()
    {
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        return process.PrivateMemorySize64;
    }
}
