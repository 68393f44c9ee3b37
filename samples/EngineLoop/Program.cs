// An engine builder's own loop on the raw kernels, with memory of their own: prefill, decode, verify a tree, commit.
// The same text is written twice, one token at a time in slot 0 and by one verified tree in slot 1, and must agree to the last bit.
using Treeline.Kernels;

const int New = 20;                                         // more than a group of 16: the tree crosses a group boundary
using KernelBackend backend = Backends.Open(args is [var name] ? name : "cpu");
using var engine = new Engine(backend, layers: 3, slots: 2);
var step = new Step();

// Prefill: the prompt is a path that moves slot 0. Slot 1 becomes its copy.
int[] prompt = [.. Enumerable.Range(0, 41).Select(i => i * 31 % Engine.Vocabulary)];
step.Advance(slot: 0, prompt.Length);
float[] last = backend.Download<float>(engine.Forward(step, prompt));
engine.State.Fork(from: 0, to: 1);

// Decode: paths of one token. text[i] is followed by the logits after[i].
var text = new int[New + 1];
var after = new float[New][];
text[0] = Largest(last);
for (int i = 0; i < New; i++)
{
    step.Clear();
    step.Advance(slot: 0, tokens: 1);
    after[i] = backend.Download<float>(engine.Forward(step, text.AsSpan(i, 1)));
    text[i + 1] = Largest(after[i]);
}

// Verify: a tree that guesses the same text, with a wrong guess beside every right one. Right guesses are nodes 0, 1, 3, 5, …
int[] parents = [-1, .. Enumerable.Range(1, 2 * (New - 1)).Select(i => i <= 2 ? 0 : i % 2 == 1 ? i - 2 : i - 3)];
int[] guesses = [text[0], .. Enumerable.Range(1, 2 * (New - 1)).Select(i => i % 2 == 1 ? text[(i + 1) / 2] : (text[i / 2] + 1) % Engine.Vocabulary)];
step.Clear();
step.Verify(slot: 1, TokenTree.FromParents(parents));
DeviceTensor logits = engine.Forward(step, guesses);

// Accept: the target's own choice after every node, and the walk from the root down.
using DeviceTensor tokens = backend.Upload<int>(guesses, guesses.Length), chosen = backend.Allocate(ElementType.Int32, guesses.Length);
using DeviceTensor accepted = backend.Allocate(ElementType.Int32, 1, step.MaxDepth), next = backend.Allocate(ElementType.Int32, 1);
backend.ArgMax(logits, chosen);
backend.Accept(step, tokens, chosen, accepted, next);
backend.Commit(engine.State, step, accepted);

int[] path = [.. backend.Download<int>(accepted).TakeWhile(node => node >= 0)];
float[] verified = backend.Download<float>(logits);
bool sameLogits = path.Select((node, depth) => verified.AsSpan(node * Engine.Vocabulary, Engine.Vocabulary).SequenceEqual(after[depth])).All(same => same);
bool sameText = path.Length == New && backend.Download<int>(next)[0] == text[New];
bool sameState = Snapshot(0).AsSpan().SequenceEqual(Snapshot(1));

Console.WriteLine($"{backend.Name}: {backend.Description}");
Console.WriteLine($"a tree of {guesses.Length} nodes: {path.Length} tokens accepted in one pass, then {backend.Download<int>(next)[0]}");
Console.WriteLine($"state of a sequence: {engine.State.Bytes(1):N0} bytes at token {engine.State.Length(1)}");
Console.WriteLine($"same text: {Word(sameText)}   same logits, bit for bit: {Word(sameLogits)}   same state: {Word(sameState)}");
return sameText && sameLogits && sameState ? 0 : 1;

int Largest(float[] row) => Array.IndexOf(row, row.Max());

string Word(bool right) => right ? "yes" : "NO";

byte[] Snapshot(int slot)
{
    using var bytes = new MemoryStream();
    engine.State.Snapshot(slot, bytes);
    return bytes.ToArray();
}
