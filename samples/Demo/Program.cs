// What tree verification gives: the same texts, one token at a time and with Medusa's guesses on a tree; how fast, from how large a state.
using System.Globalization;
using Treeline;
using Treeline.Kernels;

const int Tokens = 300, Rounds = 2;
string[] prompts = ["KING RICHARD III:\n", "JULIET:\nO ", "First Citizen:\nBefore we proceed any further, hear me speak.\n"];
string folder = args is [var path] ? path : "models/shakespeare-2m";
CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;

using KernelBackend backend = Backends.Open("cpu");
using CausalModel model = CausalModel.Load(folder, backend);
var single = new GenerationOptions { MaxTokens = Tokens };
var tree = single with { Drafter = Drafter.Medusa };
Console.WriteLine($"{model.Config.Layers} layers of augmented linear attention, groups of {model.AttentionSpecs[0].GroupSize}, {model.Medusa!.Count} Medusa heads; {backend.Name}: {backend.Description}\n");

// Streamed as it comes, by trees. This is also the warm-up: nothing is timed yet.
Console.Write(prompts[0]);
foreach (string piece in model.Generate(prompts[0], tree))
{
    Console.Write(piece);
    Console.Out.Flush();
}

foreach (string prompt in prompts) Text(prompt, single, out _);

// In turns, so that a machine that slows down slows both.
double singleSeconds = 0, treeSeconds = 0;
long tokens = 0, steps = 0;
bool identical = true;
for (int round = 0; round < Rounds; round++)
{
    foreach (string prompt in prompts)
    {
        string want = Text(prompt, single, out DecodingStatistics one), got = Text(prompt, tree, out DecodingStatistics many);
        identical &= want == got;
        singleSeconds += Seconds(one);
        treeSeconds += Seconds(many);
        tokens += many.Tokens;
        steps += many.SequenceSteps;
    }
}

Console.WriteLine("\n");
Console.WriteLine($"one at a time    {tokens / singleSeconds,8:n0} tokens/s");
Console.WriteLine($"with the tree    {tokens / treeSeconds,8:n0} tokens/s   {singleSeconds / treeSeconds:f2} times as fast");
Console.WriteLine($"tokens per step  {(double)tokens / steps,8:f2}");
Console.WriteLine($"state            {StateBytes(400),8:n0} bytes a sequence at token 400, {StateBytes(4000):n0} at token 4,000");
Console.WriteLine($"texts identical: {(identical ? "yes" : "no")}");
return identical ? 0 : 1;

string Text(string prompt, GenerationOptions options, out DecodingStatistics statistics)
{
    DecodingStatistics? seen = null;
    string text = string.Concat(model.Generate(prompt, options, s => seen = s));
    statistics = seen!;
    return text;
}

static double Seconds(DecodingStatistics statistics) => (statistics.TotalTime - statistics.PrefillTime).TotalSeconds;

long StateBytes(int length)
{
    using AttentionState state = model.CreateState(slots: 1, capacity: length);
    var step = new Step();
    step.Advance(0, length);
    model.Forward(state, step, new int[length]);
    return state.Bytes(0);
}
