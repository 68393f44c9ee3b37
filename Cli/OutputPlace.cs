using Treeline.Cli.Cases;

namespace Treeline.Cli;

/// <summary>Where an output file will be: tried before anything is computed, filled whole or not at all.</summary>
internal sealed class OutputPlace
{
    private OutputPlace(string path) => FullPath = path;

    public string FullPath { get; }

    /// <summary>Makes sure that a file can be written; what is there stays as it is.</summary>
    /// <param name="path">The file; its folder must exist.</param>
    /// <exception cref="ToolException">It cannot be written.</exception>
    public static OutputPlace Claim(string path)
    {
        string full = Path.GetFullPath(path);
        if (Path.GetFileName(full).Length == 0 || Directory.Exists(full)) throw Unwritable(path, "it is a folder");
        // The finished file is moved to its place: root would put it where the device was.
        if (full.StartsWith("/dev/", StringComparison.Ordinal) && !full.StartsWith("/dev/shm/", StringComparison.Ordinal)) throw Unwritable(path, "it is a device; expected a file");
        if (!Directory.Exists(Path.GetDirectoryName(full))) throw Unwritable(path, $"there is no folder {Path.GetDirectoryName(full)}");
        try
        {
            if (File.Exists(full)) File.Open(full, FileMode.Open, FileAccess.Write, FileShare.ReadWrite).Dispose();     // a protected file stays
            string probe = $"{full}.{Guid.NewGuid():N}.probe";
            new FileStream(probe, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1, FileOptions.DeleteOnClose).Dispose();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(path, e.Message, e);
        }

        return new OutputPlace(full);
    }

    /// <summary>Creates a folder for outputs where it is missing.</summary>
    /// <exception cref="ToolException">It cannot be created.</exception>
    public static void CreateFolder(string folder)
    {
        try
        {
            Directory.CreateDirectory(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(folder, e.Message, e);
        }
    }

    /// <summary>Writes tensors as a safetensors file.</summary>
    /// <exception cref="ToolException">It cannot be written; nothing is left behind.</exception>
    public void Save(params IEnumerable<CaseTensor> tensors)
    {
        var writer = new SafetensorsWriter();
        foreach (CaseTensor tensor in tensors) tensor.AddTo(writer);
        try
        {
            writer.Save(FullPath);
        }
        catch (CheckpointException e)
        {
            throw new ToolException(ExitCodes.Output, e.Message, e);
        }
    }

    private static ToolException Unwritable(string path, string why, Exception? e = null) => new(ExitCodes.Output, $"{path}: cannot be written: {why}", e);
}
