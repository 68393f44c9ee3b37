namespace Treeline.Kernels;

/// <summary>A state has no room for what a step would add; nothing has moved.</summary>
public sealed class OutOfCapacityException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public OutOfCapacityException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which slot, how many positions it holds, how many were asked for.</param>
    public OutOfCapacityException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which slot, how many positions it holds, how many were asked for.</param>
    /// <param name="innerException">What caused it.</param>
    public OutOfCapacityException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>The device has no memory left for an allocation; the backend stays usable.</summary>
public sealed class OutOfDeviceMemoryException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public OutOfDeviceMemoryException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">The bytes asked for, and the bytes free where known.</param>
    public OutOfDeviceMemoryException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">The bytes asked for, and the bytes free where known.</param>
    /// <param name="innerException">What caused it.</param>
    public OutOfDeviceMemoryException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>A launch or a wait failed on the device: the backend takes no calls from then on, it can only be disposed. Another one may be opened.</summary>
public sealed class BackendFaultedException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public BackendFaultedException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which backend, which call failed, and what the device said.</param>
    public BackendFaultedException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which backend, which call failed, and what the device said.</param>
    /// <param name="innerException">What caused it.</param>
    public BackendFaultedException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>A kernel could not be compiled for a device; the backend stays usable.</summary>
public sealed class KernelCompilationException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public KernelCompilationException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which kernel, which device, what the compiler said.</param>
    public KernelCompilationException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which kernel, which device, what the compiler said.</param>
    /// <param name="innerException">What caused it.</param>
    public KernelCompilationException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>The kernel's name.</summary>
    public string Kernel { get; init; } = "";

    /// <summary>The device it was compiled for.</summary>
    public string Device { get; init; } = "";

    /// <summary>All that the compiler said.</summary>
    public string Log { get; init; } = "";
}

/// <summary>A slot was left half-written by a step that failed or was not completed; <c>Reset</c> or <c>Restore</c> makes it usable again.</summary>
public sealed class BrokenSlotException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public BrokenSlotException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which slot.</param>
    public BrokenSlotException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">Which slot.</param>
    /// <param name="innerException">What caused it.</param>
    public BrokenSlotException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>No backend of that name can be opened on this machine.</summary>
public sealed class BackendUnavailableException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public BackendUnavailableException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">The name asked for, the names that exist, and why this one does not open.</param>
    public BackendUnavailableException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">The name asked for, the names that exist, and why this one does not open.</param>
    /// <param name="innerException">What caused it.</param>
    public BackendUnavailableException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>A snapshot's bytes are damaged, truncated, of an unknown version, or of another specification.</summary>
public sealed class SnapshotException : InvalidOperationException
{
    /// <summary>Creates the exception.</summary>
    public SnapshotException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">What does not fit.</param>
    public SnapshotException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">What does not fit.</param>
    /// <param name="innerException">What caused it.</param>
    public SnapshotException(string message, Exception innerException) : base(message, innerException) { }
}
