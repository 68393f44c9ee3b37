using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;

namespace Treeline;

/// <summary>Bytes that tensors point into: a mapped file, or memory of our own.</summary>
internal abstract class CheckpointMemory : IDisposable
{
    /// <summary>Where the bytes begin; 0 once disposed.</summary>
    protected nint Start { get; set; }

    /// <summary>Number of bytes.</summary>
    public long Length { get; protected init; }

    /// <summary>The address of a byte; the caller has checked that it lies inside.</summary>
    public nint Address(long offset)
    {
        ObjectDisposedException.ThrowIf(Start == 0, this);
        return Start + (nint)offset;
    }

    /// <summary>Some of the bytes; the caller has checked that they lie inside.</summary>
    public unsafe ReadOnlySpan<byte> Span(long offset, int length) => new((void*)Address(offset), length);

    public abstract void Dispose();
}

/// <summary>A file mapped for reading. Whoever shortens it meanwhile ends the process: the system's rule for mapped files.</summary>
internal sealed class MappedFile : CheckpointMemory
{
    private readonly MemoryMappedFile? _file;
    private readonly MemoryMappedViewAccessor? _view;

    /// <exception cref="CheckpointException">It is missing or cannot be read.</exception>
    public unsafe MappedFile(string path)
    {
        if (!BitConverter.IsLittleEndian) throw new PlatformNotSupportedException("checkpoints are little-endian and are used in place; this machine is big-endian");
        FileStream? stream = null;
        try
        {
            stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
            Length = stream.Length;
            // An empty file cannot be mapped; no offset lies inside it either, so any address will do.
            if (Length == 0)
            {
                stream.Dispose();
                Start = 1;
                return;
            }

            _file = MemoryMappedFile.CreateFromFile(stream, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            _view = _file.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
            byte* pointer = null;
            _view.SafeMemoryMappedViewHandle.AcquirePointer(ref pointer);
            Start = (nint)pointer;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            _view?.Dispose();
            _file?.Dispose();
            stream?.Dispose();
            string reason = e is FileNotFoundException or DirectoryNotFoundException ? "file not found" : e.Message;
            throw new CheckpointException(path, null, reason, e);
        }
    }

    public override void Dispose()
    {
        if (Start == 0) return;
        Start = 0;
        _view?.SafeMemoryMappedViewHandle.ReleasePointer();
        _view?.Dispose();
        _file?.Dispose();
    }
}

/// <summary>Memory of our own, for what a file does not hold in usable form.</summary>
internal sealed unsafe class NativeBlock : CheckpointMemory
{
    // As strict as any kernel's loads.
    private const int Alignment = 64;

    public NativeBlock(long length)
    {
        Length = length;
        Start = (nint)NativeMemory.AlignedAlloc((nuint)Math.Max(length, 1), Alignment);
    }

    public Span<byte> Writable(long offset, int length) => new((void*)Address(offset), length);

    public override void Dispose()
    {
        NativeMemory.AlignedFree((void*)Start);
        Start = 0;
    }
}
