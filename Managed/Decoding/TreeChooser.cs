namespace Treeline;

/// <summary>What a decoding step costs by its number of rows, as measured.</summary>
/// <remarks>
/// Falls fast, rises slowly: a disturbed measurement must not look like a dear tree for long. Of the first few the lowest counts: what runs for the first time is compiled then.
/// </remarks>
internal sealed class StepCost
{
    private const int MostRows = 1024;
    private const int FirstSamples = 4;
    private readonly int[] _samples = new int[MostRows + 1];
    private readonly double[] _seconds = new double[MostRows + 1];  // 0: never seen
    private int _largest;

    /// <summary>Takes in one measured step.</summary>
    public void Record(int rows, double seconds)
    {
        if (rows is < 1 or > MostRows) return;
        ref double known = ref _seconds[rows];
        if (known == 0) known = seconds;
        else if (_samples[rows] < FirstSamples) known = Math.Min(known, seconds);
        else known += (seconds < known ? 0.5 : 0.1) * (Math.Min(seconds, 3 * known) - known);
        _samples[rows]++;
        _largest = Math.Max(_largest, rows);
        // Fewer rows never cost more: what says otherwise was a disturbed measurement (the first steps are, while code is compiled).
        for (int fewer = rows - 1; fewer > 0; fewer--) _seconds[fewer] = Math.Min(_seconds[fewer], known);
    }

    /// <summary>Expected seconds: between the nearest measured numbers of rows; beyond them, as the nearest. 0 where nothing has been measured.</summary>
    public double Of(int rows)
    {
        rows = Math.Clamp(rows, 1, MostRows);
        int below = rows, above = rows;
        while (below > 0 && _seconds[below] == 0) below--;
        while (above <= _largest && _seconds[above] == 0) above++;
        if (above > _largest) return below > 0 ? _seconds[below] : 0;
        if (below == 0 || below == above) return _seconds[above];
        double share = (double)(rows - below) / (above - below);
        return _seconds[below] + share * (_seconds[above] - _seconds[below]);
    }
}

/// <summary>Picks the rung of a ladder for one sequence: the most expected tokens a second, by the acceptance it has seen and the measured cost of steps.</summary>
/// <remarks>
/// The rungs hold each other, so an accepted path also says how many tokens every smaller rung would have given. Now and then a rung is tried that could be better if
/// everything in it were accepted; such a trial costs at most as much time as its own levels take otherwise, and the trials get rarer while they change nothing.
/// It decides only what is tried, never what the text says.
/// </remarks>
internal sealed class TreeChooser
{
    private const double Rate = 1.0 / 16;                   // weight of one step in the averages, once there are that many
    private const int FirstInterval = 16;
    private const int LastInterval = 256;

    private readonly TreeLadder _ladder;
    private readonly double[] _tokens;                      // expected tokens of a step, by rung
    private readonly int[] _samples;
    private int _best;
    private int _interval = FirstInterval;
    private int _untilTrial = FirstInterval;
    private int _trial;
    private int _warmUp;                                    // rungs seen while climbing for the first time
    private int _warmUpSteps;

    public TreeChooser(TreeLadder ladder)
    {
        _ladder = ladder;
        _tokens = new double[ladder.Rungs];
        _tokens.AsSpan().Fill(1);
        _samples = new int[ladder.Rungs];
    }

    private TreeChooser(TreeChooser other)
    {
        _ladder = other._ladder;
        _tokens = [.. other._tokens];
        _samples = [.. other._samples];
        (_best, _interval, _untilTrial, _trial, _warmUp, _warmUpSteps) = (other._best, other._interval, other._untilTrial, other._trial, other._warmUp, other._warmUpSteps);
    }

    public TreeLadder Ladder => _ladder;

    /// <summary>A copy for a forked sequence.</summary>
    public TreeChooser Copy() => new(this);

    /// <summary>The rung for the next step.</summary>
    /// <param name="cost">What steps cost.</param>
    /// <param name="otherRows">Rows that other sequences bring into the step.</param>
    public int Next(StepCost cost, int otherRows)
    {
        if (_ladder.Rungs == 1) return 0;
        int best = 0;
        double rate = 0;
        for (int rung = 0; rung < _ladder.Rungs; rung++)
        {
            if (rung < _warmUp || _warmUp == _ladder.Rungs)
            {
                double candidate = Speed(rung, _tokens[rung], cost, otherRows);
                if (candidate > rate) (best, rate) = (rung, candidate);
            }
        }

        // First climb: two steps a rung, up to where even full acceptance would not pay any more. Never judged between the two: the first one may have been slow for once.
        if (_warmUp < _ladder.Rungs)
        {
            if (_warmUp > 0 && _warmUpSteps % 2 == 0 && Speed(_warmUp, _ladder[_warmUp].Levels, cost, otherRows) < rate) _warmUp = _ladder.Rungs;
            else if (++_warmUpSteps % 2 == 1) return _warmUp;
            else return _warmUp++;
        }

        if (best != _best) (_best, _interval) = (best, FirstInterval);
        if (--_untilTrial > 0) return best;
        _untilTrial = _interval;
        for (int i = 0; i < _ladder.Rungs; i++)
        {
            _trial = (_trial + 1) % _ladder.Rungs;
            if (_trial == 0) _interval = Math.Min(2 * _interval, LastInterval);     // every rung has had its turn and has changed nothing
            if (_trial != best && Speed(_trial, _ladder[_trial].Levels, cost, otherRows) > rate) return _trial;
        }

        return best;
    }

    /// <summary>Takes in what a step of some rung has given.</summary>
    /// <param name="used">The rung.</param>
    /// <param name="tree">Its tree.</param>
    /// <param name="path">The accepted nodes, node 0 first.</param>
    public void Record(int used, DraftTree tree, ReadOnlySpan<int> path)
    {
        for (int rung = 0; rung <= used && rung < _tokens.Length; rung++)
        {
            int tokens = 0;
            while (tokens < path.Length && tree.Rung(path[tokens]) <= rung) tokens++;
            _tokens[rung] += Math.Max(Rate, 1.0 / ++_samples[rung]) * (tokens - _tokens[rung]);
        }

        for (int rung = used + 1; rung < _tokens.Length; rung++) _tokens[rung] = Math.Max(_tokens[rung], _tokens[rung - 1]);
    }

    private double Speed(int rung, double tokens, StepCost cost, int otherRows)
    {
        double seconds = cost.Of(otherRows + _ladder[rung].Count);
        return seconds > 0 ? tokens / seconds : double.MaxValue;
    }
}
