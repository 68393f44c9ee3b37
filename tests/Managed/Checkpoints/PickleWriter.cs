using System.Buffers.Binary;
using System.Text;

namespace Treeline.Tests.Managed;

/// <summary>Writes pickles of protocol 2, instruction by instruction, as <c>torch.save</c> does.</summary>
internal sealed class PickleWriter
{
    private readonly List<byte> _bytes = [0x80, 2];
    private readonly Dictionary<string, int> _memo = [];

    public PickleWriter Raw(params ReadOnlySpan<byte> bytes)
    {
        _bytes.AddRange(bytes);
        return this;
    }

    public PickleWriter Code(char code) => Raw((byte)code);

    public PickleWriter Global(string module, string name) => Once($"c{module}\n{name}\n", Encoding.UTF8.GetBytes($"c{module}\n{name}\n"));

    public PickleWriter Text(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        return Once($"X{text}", [(byte)'X', .. BitConverter.GetBytes(bytes.Length), .. bytes]);
    }

    public PickleWriter Number(long number)
    {
        if (number is >= 0 and <= 255) return Raw((byte)'K', (byte)number);
        if (number is >= 0 and <= 65535) return Code('M').Raw(BitConverter.GetBytes((ushort)number));
        if (number == (int)number) return Code('J').Raw(BitConverter.GetBytes((int)number));
        var bytes = new byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, number);
        return Raw(0x8a, 8).Raw(bytes);
    }

    public PickleWriter Double(double number)
    {
        var bytes = new byte[8];
        BinaryPrimitives.WriteDoubleBigEndian(bytes, number);
        return Code('G').Raw(bytes);
    }

    /// <summary>A tuple of numbers: the short instructions up to three.</summary>
    public PickleWriter Numbers(params ReadOnlySpan<long> numbers)
    {
        if (numbers.Length is 0) return Code(')');
        if (numbers.Length > 3) Code('(');
        foreach (long number in numbers) Number(number);
        return numbers.Length > 3 ? Code('t') : Raw((byte)(0x84 + numbers.Length));
    }

    /// <summary><c>OrderedDict()</c>, called as torch does.</summary>
    public PickleWriter OrderedDictionary() => Global("collections", "OrderedDict").Raw((byte)')', (byte)'R');

    /// <summary><c>_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())</c>.</summary>
    public PickleWriter Tensor(string storageType, string key, long elements, long offset, ReadOnlySpan<long> shape, ReadOnlySpan<long> strides)
    {
        Global("torch._utils", "_rebuild_tensor_v2").Code('(');
        Code('(').Text("storage").Global("torch", storageType).Text(key).Text("cpu").Number(elements).Code('t').Code('Q');
        Number(offset).Numbers(shape).Numbers(strides).Raw(0x89).OrderedDictionary();
        return Code('t').Code('R');
    }

    // Names and strings are kept when they come first, and recalled afterwards: BINPUT and BINGET, from number 256 on their long forms.
    private PickleWriter Once(string key, byte[] instruction)
    {
        bool isKnown = _memo.TryGetValue(key, out int number);
        if (!isKnown) _memo.Add(key, number = _memo.Count + 10);
        if (!isKnown) Raw(instruction);
        return number < 256 ? Raw((byte)(isKnown ? 'h' : 'q'), (byte)number) : Code(isKnown ? 'j' : 'r').Raw(BitConverter.GetBytes(number));
    }

    public byte[] ToBytes() => [.. _bytes, (byte)'.'];
}
