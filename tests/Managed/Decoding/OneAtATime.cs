using Treeline.Kernels;

namespace Treeline.Tests.Managed.Decoding;

/// <summary>What decoding must equal: feed a token, choose the next one, in the plainest loop.</summary>
internal static class OneAtATime
{
    public static int[] Generate(CausalModel model, int[] prompt, GenerationOptions options)
    {
        using AttentionState state = model.CreateState(1, prompt.Length + options.MaxTokens + 1);
        using DeviceTensor token = model.Backend.Allocate(ElementType.Int32, 1);
        List<int> path = [.. prompt];
        ReadOnlySpan<int> feed = prompt;
        var stops = options.StopTokens ?? model.StopTokens;
        while (path.Count < prompt.Length + options.MaxTokens)
        {
            var step = new Step();
            step.Advance(0, feed.Length);
            DeviceTensor logits = model.Forward(state, step, feed).Logits;
            ILogitsProcessor[] processors = [new RepetitionPenalty(options.RepetitionPenalty), .. options.Processors];
            float[] row = model.Backend.Download<float>(logits);
            foreach (ILogitsProcessor processor in processors) processor.Process(path.ToArray(), row);
            model.Backend.Write<float>(logits, row);
            model.Backend.Sample(logits, [new SamplingRow(options.Seed, path.Count, options.Temperature, options.TopK, options.TopP, options.MinP)], token);
            path.Add(model.Backend.Download<int>(token)[0]);
            if (stops.Contains(path[^1])) break;
            feed = new[] { path[^1] };
        }

        return [.. path[prompt.Length..]];
    }
}
