using Treeline.Cli;
using Treeline.Kernels;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Cli;

/// <summary>Which backend the tool takes: the option, else the environment variable, else cpu; and what <c>auto</c> means.</summary>
public class BackendChoiceTests
{
    private static readonly string Case = Golden.Locate("acceptance/greedy_small_9.safetensors");

    private static readonly BackendInfo Cpu = new("cpu", "8 lanes", ""), Oracle = new("oracle", "loops", ""), Debugger = new("ilgpu-cpu", "slow", "");
    private static readonly BackendInfo Pocl = new("opencl:0", "a CPU behind OpenCL", ""), OldDriver = new("cuda:0", "Tesla", "the driver is too old");
    private static readonly BackendInfo Gpu = new("cuda:1", "Hopper", "") { IsGpu = true };

    [Fact]
    public void Auto_takes_the_first_usable_gpu()
    {
        Assert.Equal("cuda:1", Backends.Choose([Cpu, Oracle, OldDriver with { IsGpu = true }, Pocl, Gpu, Gpu with { Name = "opencl:1" }], out string why));
        Assert.Equal("the first usable GPU: Hopper", why);
    }

    [Fact]
    public void Auto_takes_the_cpu_where_no_gpu_is_usable_and_says_what_is_wrong_with_the_others()
    {
        Assert.Equal("cpu", Backends.Choose([Cpu, Oracle, Debugger, OldDriver with { IsGpu = true }, Pocl], out string why));
        Assert.Equal("no usable GPU; cuda:0 cannot be used: the driver is too old; opencl:0 is no GPU: a CPU behind OpenCL", why);
        Assert.Equal("cpu", Backends.Choose([Cpu, Oracle], out why));
        Assert.Equal("no usable GPU", why);
    }

    [Fact]
    public void The_fastest_wins_and_all_figures_are_said()
    {
        (string name, string why) = BackendChoice.Decide([new("cpu", 2.25), new("cuda:0", 0, "out of memory"), new("opencl:0", 0.5), new("opencl:1", 0.5)]);
        Assert.Equal("opencl:0", name);
        Assert.Equal("the fastest; a decoding step of the probe took: cpu 2.25 ms, cuda:0 failed: out of memory, opencl:0 0.5 ms, opencl:1 0.5 ms", why);
        string refused = Assert.Throws<BackendUnavailableException>(() => BackendChoice.Decide([new("cpu", 0, "out of memory")])).Message;
        Assert.Equal("backend: no backend could be measured: cpu failed: out of memory", refused);
    }

    [Fact]
    public void Usable_backends_are_measured_but_neither_the_specification_nor_the_debugging_device() =>
        Assert.Equal(["cpu", "opencl:0", "cuda:1"], BackendChoice.Candidates([Cpu, Oracle, Debugger, OldDriver, Pocl, Gpu]));

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_auto_takes_is_said_beside_the_answer(bool probe)
    {
        ToolRun run = Tool.Run(["run", Case, "--json", "--threads", "2", "--backend", "auto", .. probe ? ["--probe"] : Array.Empty<string>()]);
        Assert.Equal(ExitCodes.Success, run.Code);
        string line = Assert.Single(run.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.StartsWith($"treeline: backend auto: {run.Json.GetProperty("backend").GetString()} (", line, StringComparison.Ordinal);
        if (!probe) return;
        foreach (string name in BackendChoice.Candidates(Backends.Discover())) Assert.Contains($" {name} ", line, StringComparison.Ordinal);
        Assert.Contains("cpu ", line, StringComparison.Ordinal);
        Assert.Contains(" ms", line, StringComparison.Ordinal);
    }

    [Fact]
    public void A_probe_without_a_choice_is_refused() => Tool.Run("run", Case, "--backend", "oracle", "--probe").Refuses(ExitCodes.Usage, "--probe", "auto", "got oracle");

    [Fact]
    public void The_variable_counts_where_no_option_is_given()
    {
        string Backend(string variable, params string[] options)
        {
            ToolRun run = Tool.StartWith(variable, ["run", Case, "--json", .. options]);
            Assert.True(run.Code == ExitCodes.Success, run.Error);
            return run.Json.GetProperty("backend").GetString()!;
        }

        Assert.Equal("oracle", Backend("oracle"));
        Assert.Equal("oracle", Tool.StartWith("oracle", "info", "--json").Succeeds().Json.GetProperty("default").GetString());
        Assert.Equal("cpu", Backend("oracle", "--backend", "cpu"));
        Assert.Equal("cpu", Backend(""));
    }

    [Fact]
    public void A_wrong_variable_is_named()
    {
        Tool.StartWith("abacus", "run", Case).Refuses(ExitCodes.Unavailable, Backends.Variable, "abacus", "cpu", "oracle");
        Tool.StartWith("cpu:1", "run", Case).Refuses(ExitCodes.Unavailable, Backends.Variable, "cpu:1");
    }

    [Fact]
    public void The_variable_may_say_auto()
    {
        ToolRun run = Tool.StartWith("auto", "run", Case);
        Assert.Equal(ExitCodes.Success, run.Code);
        Assert.StartsWith("treeline: backend auto: ", run.Error, StringComparison.Ordinal);
    }
}
