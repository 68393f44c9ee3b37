using System.Text.Json;
using Treeline.GpuCheck;
using Treeline.Tests.Cli;
using Xunit;

namespace Treeline.Tests;

/// <summary>The check that is carried to a machine with a GPU: what it makes of a report, and what it leaves behind.</summary>
public class GpuCheckTests
{
    private const string Report = """
        <assemblies>
          <assembly name="a.dll" passed="5" failed="1" skipped="1" errors="1">
            <errors><error name="end of a class"><failure><message>no memory</message></failure></error></errors>
            <collection>
              <test name="A.Fails" result="Fail"><failure><message>want 1, got 2
        more</message></failure></test>
              <test name="A.Waits" result="Skip"><reason>no data</reason></test>
              <test name="A.Passes" result="Pass" />
            </collection>
          </assembly>
        </assemblies>
        """;

    [Fact]
    public void A_report_is_counted_and_its_problems_are_named()
    {
        SuitePart part = Read(Report, code: 1);
        Assert.Equal((5, 2, 1), (part.Passed, part.Failed, part.Skipped));
        Assert.Equal(["FAILED A.Fails: want 1, got 2", "ERROR end of a class: no memory", "skipped A.Waits: no data"], part.Problems);
    }

    [Theory]
    [InlineData("""<assembly passed="7" failed="0" errors="0" skipped="0" />""", 0, 7, 0)]
    [InlineData("""<assembly passed="7" failed="0" errors="0" skipped="0" />""", 139, 7, 1)]
    [InlineData("""<assembly passed="0" failed="0" errors="0" skipped="0" />""", 0, 0, 1)]
    public void A_runner_that_ended_badly_or_ran_nothing_has_failed(string report, int code, int passed, int failed)
    {
        SuitePart part = Read(report, code);
        Assert.Equal((passed, failed), (part.Passed, part.Failed));
    }

    [Fact]
    public void A_suite_that_left_no_report_has_failed()
    {
        SuitePart part = SuiteRun.Read("quick", "nowhere.xml", 0, 1, "stopped after 600 s");
        Assert.Equal((0, 1), (part.Passed, part.Failed));
        Assert.Equal(["stopped after 600 s"], part.Problems);
    }

    [Fact]
    public void A_record_is_left_as_JSON_and_as_a_table()
    {
        using var folder = new Folder();
        var record = new CheckRecord("1.2.3", new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc), "a system", "cuda:0")
        {
            Driver = "580.1",
            Devices = [new FoundDevice("cuda:0", "a card", ""), new FoundDevice("opencl:0", "no device", "no loader")],
            Verdict = "1 tests failed",
            Measures = new Measures("device events", 1000, [new Measured("linear", 12.5, 4_000_000, 0.32, 7)]),
        };
        record.Suite.Add(Read(Report, code: 1));
        record.Save(folder.Path);

        JsonElement json = JsonDocument.Parse(File.ReadAllText(folder["gpu-check.json"])).RootElement;
        Assert.Equal("1 tests failed", json.GetProperty("verdict").GetString());
        Assert.Equal("no loader", json.GetProperty("devices")[1].GetProperty("whyNot").GetString());
        Assert.Equal(2, json.GetProperty("suite")[0].GetProperty("failed").GetInt32());
        Assert.Equal(12.5, json.GetProperty("measures").GetProperty("rows")[0].GetProperty("microseconds").GetDouble());

        string[] table = File.ReadAllLines(folder["gpu-check.txt"]);
        Assert.Contains("device   opencl:0: no device (cannot be used: no loader)", table);
        Assert.Contains("verdict  1 tests failed", table);
        Assert.Contains("quick: 5 passed, 2 failed, 1 skipped, 3 s", table);
        Assert.Equal(["linear", "12.5", "4.00", "32%", "7"], table[^1].Split(' ', StringSplitOptions.RemoveEmptyEntries));
    }

    private static SuitePart Read(string report, int code)
    {
        using var folder = new Folder();
        File.WriteAllText(folder["report.xml"], report);
        return SuiteRun.Read("quick", folder["report.xml"], code, 3, trouble: null);
    }
}
