// Text generation in ten lines; the README shows them.
using Treeline;
using Treeline.Kernels;

using var backend = Backends.Open("cpu");
using var model = CausalModel.Load(args is [var folder] ? folder : "models/shakespeare-2m", backend);
var options = new GenerationOptions { Drafter = Drafter.Medusa, MaxTokens = 120, Temperature = 0.7f, Seed = 3 };
DecodingStatistics? seen = null;
foreach (string piece in model.Generate("ROMEO:\n", options, statistics => seen = statistics)) Console.Write(piece);
Console.WriteLine($"\n({seen!.Tokens} tokens in {seen.SequenceSteps} steps)");
