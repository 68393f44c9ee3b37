using Microsoft.Extensions.Logging;
using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>How a case is run.</summary>
/// <param name="Stepwise">Causal attention and models are fed one token at a time.</param>
/// <param name="Tolerance">Largest error; null: by backend and operation, see <see cref="GoldenCase.DefaultTolerance"/>.</param>
/// <param name="Progress">Told how many of how many tokens are done, null for nobody.</param>
/// <param name="Logger">Receives the warnings of loading a model.</param>
internal sealed record CaseOptions(bool Stepwise = false, double? Tolerance = null, Action<long, long>? Progress = null, ILogger? Logger = null);

/// <summary>A recorded case: inputs, and mostly the outputs that the reference's code gave for them.</summary>
internal abstract class GoldenCase(CaseFile file) : IDisposable
{
    /// <summary>Where it lies.</summary>
    public virtual string Path => File.Path;

    /// <summary>The operation.</summary>
    public string Op => File.Op;

    /// <summary>Its variant: the kind of attention, the acceptance rule, the model type.</summary>
    public virtual string Kind => File.Kind;

    /// <summary>What a reader should know, one line each.</summary>
    public IReadOnlyList<string> Warnings => File.Warnings;

    protected CaseFile File { get; } = file;

    /// <summary>True where real numbers are held to a whole model's tolerance.</summary>
    public virtual bool IsModel => false;

    /// <summary>The name of its outputs' file, without folder: that of the case file or folder.</summary>
    public string FileName => NameOf(Path) + ".safetensors";

    /// <summary>Opens a case file or a model folder.</summary>
    /// <exception cref="ToolException">It is missing, damaged, or of an operation or kind that is not known; the message says which.</exception>
    public static GoldenCase Open(string path)
    {
        bool isFolder = Directory.Exists(path);
        string recorded = isFolder ? System.IO.Path.Combine(path, "recorded.safetensors") : path;
        if (isFolder && !System.IO.File.Exists(recorded)) throw ToolException.Input($"{path}: the folder has no recorded.safetensors");
        CaseFile file = CaseFile.Open(recorded);
        try
        {
            if (isFolder) return new ModelCase(path, file);
            return file.Op switch
            {
                "attention" => new AttentionCase(file),
                "verify" => new VerifyCase(file),
                "acceptance" => new AcceptanceCase(file),
                "model" => throw ToolException.Input($"{path}: records a model; give the folder that holds it"),
                _ => throw ToolException.Unsupported($"{path}: op {file.Op} is unknown; expected attention, verify, acceptance, or a model folder"),
            };
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Largest error allowed without an explicit tolerance.</summary>
    /// <param name="backend">Whose kernels compute.</param>
    /// <param name="isModel">Whole models add up more rounding than one attention.</param>
    public static double DefaultTolerance(KernelBackend backend, bool isModel) =>
        (backend.Name, isModel) switch
        {
            ("oracle", false) => 2e-6,
            ("oracle", true) => 5e-5,
            (_, false) => 2e-5,
            (_, true) => 2e-4,
        };

    /// <summary>Computes all outputs of the case, expected or not.</summary>
    /// <exception cref="NotSupportedException">The backend does not compute it.</exception>
    public IReadOnlyList<CaseOutput> Run(KernelBackend backend, CaseOptions options, CancellationToken cancellation = default) =>
        Compute(backend, options, options.Tolerance ?? DefaultTolerance(backend, IsModel), cancellation);

    public void Dispose() => File.Dispose();

    /// <summary>True where the metadata wants an output, or names none.</summary>
    protected bool Wants(string output) => File.Outputs?.Contains(output) ?? true;

    protected abstract IReadOnlyList<CaseOutput> Compute(KernelBackend backend, CaseOptions options, double tolerance, CancellationToken cancellation);

    /// <summary>A path's last part, without the extension of a case file.</summary>
    internal static string NameOf(string path)
    {
        string name = System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(path)));
        return !Directory.Exists(path) && name.EndsWith(".safetensors", StringComparison.Ordinal) ? name[..^".safetensors".Length] : name;
    }
}
