using Treeline.Tests.Harness;

namespace Treeline.Tests.Managed;

/// <summary>A file in memory that ends where nothing may be read any more: one byte too many ends the process.</summary>
internal sealed class GuardedFile : CheckpointMemory
{
    private readonly GuardedMemory _memory;

    public unsafe GuardedFile(byte[] bytes)
    {
        _memory = new GuardedMemory(bytes.Length);
        Start = _memory.Pointer;
        Length = bytes.Length;
        bytes.CopyTo(new Span<byte>((void*)Start, bytes.Length));
    }

    public override void Dispose()
    {
        if (Start != 0) _memory.Dispose();
        Start = 0;
    }
}
