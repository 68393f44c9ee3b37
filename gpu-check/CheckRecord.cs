using System.Globalization;
using System.Text.Json;

namespace Treeline.GpuCheck;

/// <summary>A device that was found, and why it cannot be used where it cannot.</summary>
internal sealed record FoundDevice(string Name, string Description, string WhyNot);

/// <summary>One part of the test suite; <paramref name="Problems"/> names what failed, and the part itself where it crashed or ran out of time.</summary>
internal sealed record SuitePart(string Name, int Passed, int Failed, int Skipped, double Seconds, IReadOnlyList<string> Problems);

/// <summary>One micro-benchmark.</summary>
/// <param name="Name">Op and shape.</param>
/// <param name="Microseconds">Median time of one call.</param>
/// <param name="Bytes">What the op cannot avoid to move.</param>
/// <param name="ShareOfCopy">Those bytes a second, divided by what a copy moves a second.</param>
/// <param name="Gigaflops">Multiplications and additions a second, in thousand millions; 0 where memory is what counts.</param>
internal sealed record Measured(string Name, double Microseconds, long Bytes, double ShareOfCopy, double Gigaflops);

/// <summary>What was measured.</summary>
/// <param name="Clock">What the times were taken with.</param>
/// <param name="CopyGigabytesPerSecond">Bytes that a copy within the device's memory reads and writes, in thousand millions a second.</param>
/// <param name="Rows">The micro-benchmarks.</param>
internal sealed record Measures(string Clock, double CopyGigabytesPerSecond, IReadOnlyList<Measured> Rows);

/// <summary>Everything that a check saw: written as JSON for programs and as a table for people, again after every part, so that a run that is cut off leaves what it had.</summary>
internal sealed record CheckRecord(string Version, DateTime Began, string System, string Backend)
{
    /// <summary>How it is written.</summary>
    public static readonly JsonSerializerOptions Indented = new() { WriteIndented = true, PropertyNamingPolicy = JsonNamingPolicy.CamelCase };

    /// <summary>How it ended, in words.</summary>
    public string Verdict { get; set; } = "not finished";

    /// <summary>The device's own description.</summary>
    public string Device { get; set; } = "";

    /// <summary>The NVIDIA driver, empty where there is none.</summary>
    public string Driver { get; init; } = "";

    /// <summary>What there was to choose from.</summary>
    public IReadOnlyList<FoundDevice> Devices { get; init; } = [];

    /// <summary>The suite, in the order it ran.</summary>
    public List<SuitePart> Suite { get; } = [];

    /// <summary>The micro-benchmarks; null where there are none.</summary>
    public Measures? Measures { get; set; }

    /// <summary>Writes <c>gpu-check.json</c> and <c>gpu-check.txt</c>.</summary>
    public void Save(string folder)
    {
        File.WriteAllText(Path.Combine(folder, "gpu-check.json"), JsonSerializer.Serialize(this, Indented) + "\n");
        File.WriteAllText(Path.Combine(folder, "gpu-check.txt"), Table());
    }

    /// <summary>The table.</summary>
    public string Table()
    {
        var text = new StringWriter(CultureInfo.InvariantCulture) { NewLine = "\n" };
        text.WriteLine($"treeline {Version}, {Began:yyyy-MM-dd HH:mm} UTC, {System}");
        text.WriteLine($"driver   {(Driver.Length > 0 ? Driver : "none")}");
        foreach (FoundDevice device in Devices)
            text.WriteLine($"device   {device.Name}: {device.Description}{(device.WhyNot.Length > 0 ? $" (cannot be used: {device.WhyNot})" : "")}");
        text.WriteLine($"checked  {Backend}{(Device.Length > 0 ? $": {Device}" : "")}");
        text.WriteLine($"verdict  {Verdict}");
        foreach (SuitePart part in Suite)
        {
            text.WriteLine();
            text.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{part.Name}: {part.Passed} passed, {part.Failed} failed, {part.Skipped} skipped, {part.Seconds:f0} s"));
            foreach (string problem in part.Problems) text.WriteLine($"  {problem}");
        }

        if (Measures is null) return text.ToString();
        text.WriteLine();
        text.WriteLine(string.Create(CultureInfo.InvariantCulture, $"times: {Measures.Clock}; a copy moves {Measures.CopyGigabytesPerSecond:f0} GB/s (read and written)"));
        text.WriteLine($"{"",-44} {"µs",10} {"MB",10} {"of copy",8} {"GFLOP/s",9}");
        foreach (Measured row in Measures.Rows)
            text.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{row.Name,-44} {row.Microseconds,10:f1} {row.Bytes / 1e6,10:f2} {100 * row.ShareOfCopy,7:f0}% {(row.Gigaflops > 0 ? row.Gigaflops.ToString("f0", CultureInfo.InvariantCulture) : ""),9}"));
        return text.ToString();
    }
}
