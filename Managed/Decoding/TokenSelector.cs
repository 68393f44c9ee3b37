using Treeline.Kernels;

namespace Treeline;

/// <summary>From a step's logits to each sequence's accepted path and its tokens. Reuses its memory: a steady step allocates nothing (logits processors excepted).</summary>
internal sealed class TokenSelector : IDisposable
{
    private const int MostViews = 512;

    private readonly KernelBackend _backend;
    private readonly Dictionary<(int Entries, int Width), DeviceTensor> _tables = [];
    private DeviceTensor? _tokens, _chosen, _next, _accepted, _logProbabilities, _processed;
    private SamplingRow[] _rows = new SamplingRow[64];
    private int[] _chosenHost = new int[64];
    private int[] _targets = new int[64];
    private float[] _logProbabilitiesHost = new float[64];
    private float[] _logits = [];
    private int[] _paths = new int[64];                     // [entries, width], -1 padded
    private int[] _table = new int[64];
    private int[] _lengths = new int[4];
    private Exception?[] _errors = new Exception?[4];
    private Exception?[] _rowErrors = [];                   // empty unless a row could not be drawn from
    private int[] _stepTokens = [];
    private Step _step = new();
    private int _width;

    public TokenSelector(KernelBackend backend) => _backend = backend;

    /// <summary>Chooses and accepts.</summary>
    /// <param name="step">A completed step with logit rows.</param>
    /// <param name="entries">The sequence of each entry.</param>
    /// <param name="tokens">The step's tokens.</param>
    /// <param name="logits"><c>[step.LogitCount, vocabulary]</c>.</param>
    public void Choose(Step step, List<Sequence> entries, int[] tokens, DeviceTensor logits)
    {
        (_step, _stepTokens, _width) = (step, tokens, step.MaxDepth);
        Grow(entries.Count, step.LogitCount);
        Array.Clear(_errors);
        if (_rowErrors.Length > 0) _rowErrors = [];

        for (int i = 0; i < entries.Count; i++)
        {
            StepEntry entry = step[i];
            for (int row = entry.LogitOffset; row < entry.LogitOffset + entry.LogitCount; row++)
                _rows[row] = entries[i].Options.Row(step.Positions[step.LogitRows[row]] + 1);
        }

        DeviceTensor raw = logits;
        foreach (Sequence sequence in entries)
        {
            if (sequence.Processors.Length == 0) continue;
            logits = Process(entries, raw);
            break;
        }

        Draw(logits);
        Accept(entries, logits);
        for (int i = 0; i < entries.Count; i++)
        {
            if (_lengths[i] == 0) continue;
            int last = step[i].LogitOffset + Path(i)[^1];
            if (_chosenHost[last] < 0) _errors[i] ??= _rowErrors[last];
        }

        foreach (Sequence sequence in entries)
        {
            if (!sequence.Options.LogProbabilities) continue;
            MeasureLogProbabilities(entries.Count, raw);
            break;
        }
    }

    /// <summary>What went wrong for one entry, null where nothing did.</summary>
    public Exception? Error(int entry) => _errors[entry];

    /// <summary>The nodes that an entry keeps, node 0 first: as many tokens become text. Node 0 stands for the last row of an entry that moves.</summary>
    public ReadOnlySpan<int> Path(int entry) => _paths.AsSpan(entry * _width, _lengths[entry]);

    /// <summary>The i-th token that follows an entry's last one.</summary>
    public (int Token, float LogProbability) Emitted(int entry, int i)
    {
        ReadOnlySpan<int> path = Path(entry);
        int row = _step[entry].LogitOffset + path[i];
        int token = i + 1 < path.Length ? _stepTokens[_step[entry].Offset + path[i + 1]] : _chosenHost[row];
        return (token, _logProbabilitiesHost[row]);
    }

    public void Dispose()
    {
        foreach (DeviceTensor? tensor in (ReadOnlySpan<DeviceTensor?>)[_tokens, _chosen, _next, _accepted, _logProbabilities, _processed]) tensor?.Dispose();
    }

    /// <summary>The model's own choice after each row; where a row cannot be drawn from, -1 and an error that counts only if a text comes to that row.</summary>
    private void Draw(DeviceTensor logits)
    {
        int rows = _step.LogitCount;
        DeviceTensor chosen = _chosen!.First(rows);
        Span<int> host = _chosenHost.AsSpan(0, rows);
        try
        {
            _backend.Sample(logits, _rows.AsSpan(0, rows), chosen);
            _backend.Read(chosen, host);
            return;
        }
        catch (ArgumentException)
        {
            _rowErrors = new Exception?[rows];              // some row is bad: find out which, the others are still good
        }

        for (int row = 0; row < rows; row++)
        {
            DeviceTensor one = chosen.Slice(0, row, 1);
            try
            {
                _backend.Sample(logits.Slice(0, row, 1), _rows.AsSpan(row, 1), one);
                _backend.Read(one, host.Slice(row, 1));
            }
            catch (ArgumentException e)
            {
                host[row] = -1;
                _rowErrors[row] = new NotFiniteNumberException($"no token can be chosen for position {_rows[row].Position}: {e.Message}", e);
            }
        }

        _backend.Write<int>(chosen, host);
    }

    private void Accept(List<Sequence> entries, DeviceTensor logits)
    {
        int size = entries.Count * _width;
        bool verified = false, typical = false;
        for (int i = 0; i < entries.Count; i++)
        {
            verified |= !_step[i].Moves && entries[i].Rule != Acceptance.Typical;
            typical |= !_step[i].Moves && entries[i].Rule == Acceptance.Typical;
        }

        _paths.AsSpan(0, size).Fill(-1);
        DeviceTensor table = Table(entries.Count, _width), tokens = _tokens!.First(_step.Tokens);
        if (verified || typical) _backend.Write<int>(tokens, _stepTokens.AsSpan(0, _step.Tokens));
        if (verified)
        {
            _backend.Accept(_step, tokens, _chosen!.First(_step.LogitCount), table, _next!.First(entries.Count));
            _backend.Read(table, _paths.AsSpan(0, size));
        }

        for (int i = 0; typical && i < entries.Count; i++)
        {
            if (_step[i].Moves || entries[i].Rule != Acceptance.Typical) continue;
            GenerationOptions how = entries[i].Options;
            _backend.AcceptTypical(_step, tokens, logits, how.Temperature, how.TypicalThreshold, how.TypicalAlpha, table);
            _backend.Read(table, _table.AsSpan(0, size));
            typical = false;
            for (int j = i; j < entries.Count; j++)
            {
                if (_step[j].Moves || entries[j].Rule != Acceptance.Typical) continue;
                GenerationOptions other = entries[j].Options;
                bool same = (other.Temperature, other.TypicalThreshold, other.TypicalAlpha) == (how.Temperature, how.TypicalThreshold, how.TypicalAlpha);
                if (same) _table.AsSpan(j * _width, _width).CopyTo(_paths.AsSpan(j * _width, _width));
                typical |= !same && j > i;
            }
        }

        for (int i = 0; i < entries.Count; i++)
        {
            Span<int> row = _paths.AsSpan(i * _width, _width);
            if (_step[i].Moves)
            {
                _lengths[i] = _step[i].LogitCount;
                if (_lengths[i] > 0) row[0] = 0;
            }
            else
            {
                int end = row.IndexOf(-1);
                _lengths[i] = end < 0 ? _width : end;
            }
        }
    }

    /// <summary>A copy of the logits, edited by each sequence's processors with each row's own path.</summary>
    private DeviceTensor Process(List<Sequence> entries, DeviceTensor logits)
    {
        int rows = logits.Rows, width = logits.RowLength;
        if (_logits.Length < rows * width) _logits = new float[rows * width];
        Grow(ref _processed, ElementType.Float32, rows, width);
        _backend.Read(logits, _logits.AsSpan(0, rows * width));
        for (int i = 0; i < entries.Count; i++)
        {
            StepEntry entry = _step[i];
            if (entries[i].Processors.Length == 0 || entry.LogitCount == 0) continue;
            try
            {
                Process(entries[i], entry, width);
            }
#pragma warning disable CA1031 // a processor is the caller's code: whatever it throws ends its own sequence, not the others
            catch (Exception e)
#pragma warning restore CA1031
            {
                _errors[i] = e;
            }
        }

        _backend.Write<float>(_processed!.First(rows), _logits.AsSpan(0, rows * width));
        return _processed!.First(rows);
    }

    private void Process(Sequence sequence, StepEntry entry, int width)
    {
        int count = sequence.Count;
        Span<int> tokens = sequence.TokensAndRoom(entry.Moves ? 0 : entry.Tree.Levels);
        for (int node = 0; node < entry.LogitCount; node++)
        {
            int length = count;
            if (!entry.Moves)
            {
                length += entry.Tree.Depth(node);
                for (int at = node, to = length - 1; to >= count; to--, at = entry.Tree.Parent(at)) tokens[to] = _stepTokens[entry.Offset + at];
            }

            Span<float> row = _logits.AsSpan((entry.LogitOffset + node) * width, width);
            foreach (ILogitsProcessor processor in sequence.Processors) processor.Process(tokens[..length], row);
        }
    }

    private void MeasureLogProbabilities(int entries, DeviceTensor logits)
    {
        int rows = logits.Rows;
        Array.Clear(_targets);
        for (int i = 0; i < entries; i++)
        {
            for (int k = 0; k < _lengths[i] && _errors[i] is null; k++) _targets[_step[i].LogitOffset + Path(i)[k]] = Emitted(i, k).Token;
        }

        _backend.Write<int>(_chosen!.First(rows), _targets.AsSpan(0, rows));
        _backend.LogProbability(logits, _chosen.First(rows), _logProbabilities!.First(rows));
        _backend.Read(_logProbabilities.First(rows), _logProbabilitiesHost.AsSpan(0, rows));
    }

    private void Grow(int entries, int rows)
    {
        Grow(ref _tokens, ElementType.Int32, _step.Tokens);
        Grow(ref _chosen, ElementType.Int32, rows);
        Grow(ref _next, ElementType.Int32, entries);
        Grow(ref _logProbabilities, ElementType.Float32, rows);
        if (_rows.Length < rows)
        {
            int size = Math.Max(rows, 2 * _rows.Length);
            _rows = new SamplingRow[size];
            _chosenHost = new int[size];
            _targets = new int[size];
            _logProbabilitiesHost = new float[size];
        }

        if (_lengths.Length < entries)
        {
            _lengths = new int[2 * entries];
            _errors = new Exception?[2 * entries];
        }

        if (_paths.Length < entries * _width)
        {
            _paths = new int[2 * entries * _width];
            _table = new int[2 * entries * _width];
        }
    }

    private void Grow(ref DeviceTensor? tensor, ElementType type, int rows, int width = 0)
    {
        if (tensor is not null && tensor.Rows >= rows && (width == 0 || tensor.RowLength == width)) return;
        int size = Math.Max(rows, width == 0 ? 2 * (tensor?.Rows ?? 32) : 0);
        tensor?.Dispose();
        tensor = width == 0 ? _backend.Allocate(type, size) : _backend.Allocate(type, size, width);
    }

    /// <summary>The table of accepted paths in the shape of this step; the same view each time for the same shape.</summary>
    private DeviceTensor Table(int entries, int width)
    {
        if (_accepted is null || _accepted.Count < entries * width)
        {
            _tables.Clear();
            Grow(ref _accepted, ElementType.Int32, entries * width);
        }

        if (_tables.TryGetValue((entries, width), out DeviceTensor? table)) return table;
        if (_tables.Count == MostViews) _tables.Clear();
        return _tables[(entries, width)] = _accepted!.First(entries * width).View(entries, width);
    }
}
