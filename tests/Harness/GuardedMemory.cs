using System.Runtime.InteropServices;

namespace Treeline.Tests.Harness;

/// <summary>Memory whose end is the end of what may be touched: on Linux an unreadable page follows, so that one number too many ends the process.</summary>
internal sealed unsafe partial class GuardedMemory : IDisposable
{
    private const int None = 0, ReadWrite = 3, PrivateAnonymous = 0x22;
    private readonly nint _start;
    private readonly nuint _size;

    /// <summary>Zeroed memory; elsewhere than on Linux without the guard.</summary>
    public GuardedMemory(long bytes)
    {
        if (!OperatingSystem.IsLinux())
        {
            _start = Pointer = (nint)NativeMemory.AllocZeroed((nuint)bytes);
            return;
        }

        nuint page = (nuint)Environment.SystemPageSize, used = ((nuint)bytes + page - 1) / page * page;
        _size = used + page;
        _start = mmap(0, _size, ReadWrite, PrivateAnonymous, -1, 0);
        if (_start == -1 || mprotect(_start + (nint)used, page, None) != 0) throw new InvalidOperationException($"no guarded memory of {bytes} bytes: {Marshal.GetLastPInvokeErrorMessage()}");
        Pointer = _start + (nint)used - (nint)bytes;
    }

    /// <summary>The first byte; the last one lies before the guard.</summary>
    public nint Pointer { get; }

    public void Dispose()
    {
        if (_size == 0) NativeMemory.Free((void*)_start);
        else _ = munmap(_start, _size);
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint mmap(nint address, nuint length, int protection, int flags, int file, nint offset);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int mprotect(nint address, nuint length, int protection);

    [LibraryImport("libc")]
    private static partial int munmap(nint address, nuint length);
}
