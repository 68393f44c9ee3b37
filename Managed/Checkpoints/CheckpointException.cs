namespace Treeline;

/// <summary>A checkpoint's files are missing, damaged, hostile, or not what the model needs.</summary>
public sealed class CheckpointException : Exception
{
    /// <summary>Creates the exception.</summary>
    public CheckpointException() { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">What does not fit.</param>
    public CheckpointException(string message) : base(message) { }

    /// <summary>Creates the exception.</summary>
    /// <param name="message">What does not fit.</param>
    /// <param name="innerException">What caused it.</param>
    public CheckpointException(string message, Exception innerException) : base(message, innerException) { }

    /// <summary>Creates the exception; its message begins with the file and, where there is one, the tensor.</summary>
    /// <param name="file">The file, or the folder.</param>
    /// <param name="tensor">The tensor, null where it is about the whole file.</param>
    /// <param name="message">What was found and what is wanted.</param>
    /// <param name="innerException">What caused it.</param>
    public CheckpointException(string file, string? tensor, string message, Exception? innerException = null)
        : base(Printable(tensor is null ? $"{file}: {message}" : $"{file}: tensor '{Shorten(tensor)}': {message}"), innerException)
    {
        File = file;
        Tensor = tensor;
    }

    /// <summary>The file, or the folder; null where none is to blame.</summary>
    public string? File { get; }

    /// <summary>The tensor, null where it is about the whole file.</summary>
    public string? Tensor { get; }

    /// <summary>True where nothing is damaged: the checkpoint asks for something that this version does not compute.</summary>
    public bool IsUnsupported { get; init; }

    // Names come from the file: a hostile one must neither fill the screen nor steer the terminal.
    private static string Shorten(string name) => name.Length <= 200 ? name : name[..200] + "…";

    private static string Printable(string message)
    {
        if (message.Length > 2000) message = message[..2000] + "…";
        return string.Create(message.Length, message, (to, from) =>
        {
            for (int i = 0; i < to.Length; i++) to[i] = char.IsControl(from[i]) ? '?' : from[i];
        });
    }
}
