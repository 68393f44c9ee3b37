using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.Backends.OpenCL;
using ILGPU.IR;
using ILGPU.IR.Intrinsics;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using ILGPU.Runtime.OpenCL;
using Treeline.Kernels;
using Treeline.Kernels.ILGPU;
using Treeline.Tests.Harness;
using Xunit;

namespace Treeline.Tests.Kernels;

/// <summary>Kernels that do not compile, launches that fail, calls that overlap, work in flight.</summary>
public class IlgpuFaultTests
{
    public static TheoryData<string> Names => IlgpuDevices.Names;

    public static TheoryData<string> Asynchronous => IlgpuDevices.Asynchronous;

    [Theory, MemberData(nameof(Names))]
    public void A_kernel_that_ILGPU_refuses_is_named_with_its_device_and_the_reason(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        Assert.True(IlgpuDevices.Works(backend));
        int kernels = backend.Kernels.Count;
        Action<AcceleratorStream, Index1D, ArrayView<int>>? launch = null;
        KernelCompilationException e = Assert.Throws<KernelCompilationException>(() => backend.Load(ref launch, AllocatingKernel));
        Assert.Equal((nameof(AllocatingKernel), name), (e.Kernel, e.Device));
        Assert.StartsWith($"{name}: kernel {nameof(AllocatingKernel)} cannot be compiled: {e.Log}", e.Message, StringComparison.Ordinal);
        Assert.Contains("System.Version", e.Log, StringComparison.Ordinal);
        Assert.Null(launch);
        // Kernels that are compiled already go on, and new ones compile.
        Assert.True(IlgpuDevices.Works(backend));
        using DeviceTensor numbers = backend.Upload<float>([1, 2, 3, 4], 1, 4);
        Action<AcceleratorStream, KernelConfig, Rows, int>? next = null;
        backend.Load(ref next, SumKernel)(backend.Stream, new KernelConfig(1, RowGroup.Size), new Rows(((IlgpuBuffer)numbers.Buffer).View.Cast<float>(), 4), 4);
        Assert.Equal([10, 2, 3, 4], backend.Download<float>(numbers));
        Assert.DoesNotContain(backend.Kernels.Skip(kernels), kernel => kernel.Kernel == nameof(AllocatingKernel));
    }

    [Fact]
    public void What_the_drivers_compiler_says_is_kept()
    {
        using IlgpuBackend backend = OpenOwn();
        Action<AcceleratorStream, Index1D, ArrayView<int>>? launch = null;
        KernelCompilationException e = Assert.Throws<KernelCompilationException>(() => backend.Load(ref launch, UnknownKernel));
        Assert.Equal((nameof(UnknownKernel), "opencl:own"), (e.Kernel, e.Device));
        Assert.Contains("no_such_function", e.Log, StringComparison.Ordinal);
        Assert.Null(launch);
        Assert.True(IlgpuDevices.Works(backend));
    }

    [Theory, InlineData(true), InlineData(false)]
    public void A_kernel_that_is_refused_does_not_take_the_others_of_its_program_with_it(bool byDriver)
    {
        Action<Index1D, ArrayView<int>> refused = byDriver ? UnknownKernel : AllocatingKernel;
        using IlgpuBackend backend = OpenOwn(new KernelProgram("sound", CountKernel, TwiceKernel), new KernelProgram("unsound", ThriceKernel, refused, OppositeKernel));
        using DeviceTensor numbers = backend.Allocate(ElementType.Int32, 4);
        Assert.Equal([0, 1, 2, 3], Launched(CountKernel));
        Assert.Equal([0, 3, 6, 9], Launched(ThriceKernel));
        Assert.Equal(refused.Method.Name, Assert.Throws<KernelCompilationException>(() => Launched(refused)).Kernel);
        Assert.Equal([0, -1, -2, -3], Launched(OppositeKernel));
        Assert.Equal([0, 2, 4, 6], Launched(TwiceKernel));
        Assert.Equal(["sound", nameof(ThriceKernel), nameof(OppositeKernel), "sound"], backend.Kernels.Select(kernel => kernel.Program));

        int[] Launched(Action<Index1D, ArrayView<int>> kernel)
        {
            Action<AcceleratorStream, Index1D, ArrayView<int>>? launch = null;
            backend.Load(ref launch, kernel)(backend.Stream, 4, ((IlgpuBuffer)numbers.Buffer).View.Cast<int>());
            return backend.Download<int>(numbers);
        }
    }

    // cuBLAS is not here; what becomes of what it says is.
    [Fact]
    public void A_library_without_memory_is_no_fault_and_any_other_trouble_of_it_is()
    {
        IlgpuBackend backend = IlgpuDevices.Open("ilgpu-cpu");
        using (backend.Enter("Linear"))
        {
            Assert.StartsWith("ilgpu-cpu: no memory for the work queued, free ", Assert.IsType<OutOfDeviceMemoryException>(backend.Failed(new CuBlasException(CuBlasStatus.CUBLAS_STATUS_ALLOC_FAILED))).Message, StringComparison.Ordinal);
        }

        Assert.True(IlgpuDevices.Works(backend));
        using (backend.Enter("Linear"))
        {
            Assert.StartsWith("ilgpu-cpu: Linear failed on the device: ", Assert.IsType<BackendFaultedException>(backend.Failed(new CuBlasException(CuBlasStatus.CUBLAS_STATUS_EXECUTION_FAILED))).Message, StringComparison.Ordinal);
        }

        backend.Dispose();
    }

    [Theory, MemberData(nameof(Names))]
    public void After_a_fault_every_call_is_refused_and_the_device_is_not_used_again(string name)
    {
        IlgpuBackend backend = IlgpuDevices.Open(name);
        Accelerator accelerator = backend.Accelerator;
        DeviceTensor tensor = backend.Upload<float>([1, 2], 1, 2);
        Exception fault;
        using (backend.Enter("Add")) fault = backend.Failed(new CLException(CLError.CL_OUT_OF_RESOURCES));
        Assert.StartsWith($"{name}: Add failed on the device: ", Assert.IsType<BackendFaultedException>(fault).Message, StringComparison.Ordinal);

        foreach (Action call in (Action[])[backend.Synchronize, () => backend.Add(tensor, tensor, tensor), () => backend.Download<float>(tensor), () => backend.Allocate(ElementType.Float32, 1)])
        {
            BackendFaultedException later = Assert.Throws<BackendFaultedException>(call);
            Assert.Contains(" refused, the backend is unusable since an earlier failure: " + fault.Message, later.Message, StringComparison.Ordinal);
            Assert.Same(fault, later.InnerException);
        }

        tensor.Dispose();
        backend.Dispose();
        backend.Dispose();
        Assert.Throws<ObjectDisposedException>(backend.Synchronize);
        using IlgpuBackend next = IlgpuDevices.Open(name);
        Assert.NotSame(accelerator, next.Accelerator);
        Assert.True(IlgpuDevices.Works(next));
    }

    [Fact]
    public void A_launch_that_the_driver_refuses_is_a_fault_of_its_op()
    {
        using IlgpuBackend backend = IlgpuDevices.Open("opencl:0"), other = IlgpuDevices.Open("opencl:0");
        using DeviceTensor four = backend.Upload<int>([0, 0, 0, 0], 4);
        Action<AcceleratorStream, Index1D, ArrayView<int>>? launch = null;
        BackendFaultedException e = Assert.Throws<BackendFaultedException>(() =>
        {
            using KernelBackend.Call call = backend.Enter("Silu");
            backend.Load(ref launch, CountKernel)(other.Stream, 4, ((IlgpuBuffer)four.Buffer).View.Cast<int>());
        });
        Assert.StartsWith("opencl:0: Silu failed on the device: ", e.Message, StringComparison.Ordinal);
        Assert.IsType<CLException>(e.InnerException);
        Assert.Throws<BackendFaultedException>(backend.Synchronize);
        Assert.True(IlgpuDevices.Works(other));
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public async Task A_call_beside_one_that_waits_for_the_device_is_refused(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor number = backend.Upload<int>([1], 1);
        using var launched = new ManualResetEventSlim();
        Task call = Task.Run(() =>
        {
            using KernelBackend.Call entered = backend.Enter("Slow");
            SlowKernel.Launch(backend, number);
            launched.Set();
            backend.Wait();
        }, TestContext.Current.CancellationToken);
        launched.Wait(TestContext.Current.CancellationToken);
        Assert.Contains("overlaps another call", Assert.Throws<InvalidOperationException>(backend.Synchronize).Message, StringComparison.Ordinal);
        await call;
        Assert.True(IlgpuDevices.Works(backend));
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void Work_in_flight_keeps_its_memory(string name)
    {
        using IlgpuBackend backend = IlgpuDevices.Open(name);
        using DeviceTensor number = backend.Upload<int>([1], 1), sum = backend.Allocate(ElementType.Float32, 1, 1000);
        SlowKernel.Launch(backend, number);
        AddDropped(backend, sum);
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Assert.Equal(2, backend.Memory.Waiting);
        // What takes the dropped tensors' place, if they were given back too early.
        using DeviceTensor other = backend.Allocate(ElementType.Float32, 1, 1000), another = backend.Allocate(ElementType.Float32, 1, 1000);
        Assert.Equal(0, backend.Memory.Waiting);
        Assert.All(backend.Download<float>(sum), x => Assert.Equal(3, x));
    }

    [Theory, MemberData(nameof(Asynchronous))]
    public void Tensors_and_backend_may_be_disposed_with_work_in_flight(string name)
    {
        IlgpuBackend backend = IlgpuDevices.Open(name);
        DeviceTensor number = backend.Upload<int>([1], 1), x = backend.Upload<float>([1, 2], 1, 2), kept = backend.Upload<float>([1, 2], 1, 2);
        SlowKernel.Launch(backend, number);
        backend.Add(x, x, x);
        x.Dispose();
        x.Dispose();
        SlowKernel.Launch(backend, number);
        backend.Dispose();
        backend.Dispose();
        number.Dispose();
        kept.Dispose();
        using IlgpuBackend next = IlgpuDevices.Open(name);
        Assert.True(IlgpuDevices.Works(next));
    }

    /// <summary>A device of its own, with other programs, whose contexts write for a function what no driver knows.</summary>
    private static IlgpuBackend OpenOwn(params KernelProgram[] programs)
    {
        IlgpuDevices.Open("opencl:0").Dispose();            // there is one
        Context context = Context.Create(builder => builder.Optimize(OptimizationLevel.O2).OpenCL(device =>
        {
            GenericAddressSpace.Claim(device);
            return true;
        }));
        CLAccelerator accelerator = context.GetCLDevice(0).CreateCLAccelerator(context);
        var device = new global::Treeline.Kernels.ILGPU.Device("opencl:own", context, accelerator, withConsent: true, programs: new OpenClPrograms(accelerator, apart =>
        {
            Devices.Register(apart);
            apart.GetIntrinsicManager().RegisterMethod(typeof(IlgpuFaultTests).GetMethod(nameof(Unknown))!, new CLIntrinsic(typeof(IlgpuFaultTests), nameof(EmitUnknown), IntrinsicImplementationMode.GenerateCode));
        }, programs));
        return new IlgpuBackend(device, new BackendOptions());
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void AddDropped(IlgpuBackend backend, DeviceTensor sum)
    {
        DeviceTensor ones = backend.Upload<float>([.. Enumerable.Repeat(1f, 1000)], 1, 1000), twos = backend.Upload<float>([.. Enumerable.Repeat(2f, 1000)], 1, 1000);
        SlowKernel.Launch(backend, sum);
        backend.Add(ones, twos, sum);
    }

    // What kernels have not: objects.
    private static void AllocatingKernel(Index1D index, ArrayView<int> result) => result[index] = new Version(index, 1).Major;

    private static void UnknownKernel(Index1D index, ArrayView<int> result) => result[index] = Unknown(index);

    private static void SumKernel(Rows rows, int columns)
    {
        ArrayView<float> shared = SharedMemory.Allocate<float>(RowGroup.Size);
        float sum = 0;
        for (int c = Group.IdxX; c < columns; c += RowGroup.Size) sum += rows[Grid.IdxX, c];
        sum = RowGroup.Sum(shared, sum);
        if (Group.IdxX == 0) rows[Grid.IdxX, 0] = sum;
    }

    private static void CountKernel(Index1D index, ArrayView<int> result) => result[index] = index;

    private static void TwiceKernel(Index1D index, ArrayView<int> result) => result[index] = 2 * index;

    private static void ThriceKernel(Index1D index, ArrayView<int> result) => result[index] = 3 * index;

    private static void OppositeKernel(Index1D index, ArrayView<int> result) => result[index] = -index;

    /// <summary>A function of which the driver has never heard.</summary>
    [IntrinsicImplementation]
    public static int Unknown(int x) => x;

    private static void EmitUnknown(CLBackend backend, CLCodeGenerator generator, Value value)
    {
        var x = generator.Load(value[0]);
        using CLCodeGenerator.StatementEmitter statement = generator.BeginStatement(generator.Allocate(value));
        statement.AppendCommand("no_such_function");
        statement.BeginArguments();
        statement.AppendArgument(x);
        statement.EndArguments();
    }
}
