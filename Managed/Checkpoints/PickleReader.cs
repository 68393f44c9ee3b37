using System.Buffers.Binary;
using System.Text;

namespace Treeline;

/// <summary>Reads the pickles that <c>torch.save</c> writes for dictionaries of tensors, and nothing else.</summary>
/// <remarks>
/// A pickle is a program for a stack machine that may name and call any Python function. This machine knows containers, numbers, strings and the names in
/// <see cref="PickleGlobal"/>; every other name and every other instruction is refused, so a checkpoint cannot run anything.
/// One instruction costs constant time and memory, apart from the bytes it carries; nothing recurses and shared values are never walked twice.
/// </remarks>
internal ref struct PickleReader
{
    /// <summary>Longer than any model's: about 200 bytes describe a tensor.</summary>
    public const int MaxLength = 16 << 20;

    // A container of one byte in the file takes about fifty here.
    private const int MaxValues = 4_000_000;

    private const int MaxName = 500;

    private static readonly UTF8Encoding Utf8 = new(false, throwOnInvalidBytes: true);

    private readonly string _file;
    private readonly ReadOnlySpan<byte> _bytes;
    private readonly List<object?> _stack = [];
    private readonly List<int> _marks = [];
    private readonly Dictionary<uint, object?> _memo = [];
    private int _at;
    private int _values;

    private PickleReader(string file, ReadOnlySpan<byte> bytes)
    {
        _file = file;
        _bytes = bytes;
    }

    /// <summary>Reads one value.</summary>
    /// <exception cref="CheckpointException">It is damaged, too large, or wants something run.</exception>
    public static object? Read(string file, ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > MaxLength) throw new CheckpointException(file, null, $"its pickle has {bytes.Length} bytes, at most {MaxLength} are read");
        var reader = new PickleReader(file, bytes);
        while (reader.Step()) { }
        return reader.Pop();
    }

    // One instruction; false at the end.
    private bool Step()
    {
        byte code = Take(1)[0];
        switch ((char)code)
        {
            case '\x80':                                                    // PROTO
                if (Take(1)[0] is > 5 and var version) throw Bad($"protocol {version} is not supported");
                break;
            case '\x95': Take(8); break;                                    // FRAME: a hint for reading ahead
            case '.': return false;                                         // STOP

            case '(': _marks.Add(_stack.Count); Count(); break;             // MARK
            case '0': PopOrUnmark(); break;                                 // POP
            case '1': _ = ToMark(); break;                                  // POP_MARK
            case '2': Push(Peek()); break;                                  // DUP

            case 'N': Push(null); break;                                    // NONE
            case '\x88': Push(true); break;                                 // NEWTRUE
            case '\x89': Push(false); break;                                // NEWFALSE
            case 'K': Push((long)Take(1)[0]); break;                        // BININT1
            case 'M': Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2))); break;      // BININT2
            case 'J': Push((long)BinaryPrimitives.ReadInt32LittleEndian(Take(4))); break;       // BININT
            case '\x8a': Push(Long()); break;                               // LONG1
            case 'G': Push(BinaryPrimitives.ReadDoubleBigEndian(Take(8))); break;               // BINFLOAT
            case 'U' or '\x8c': Push(Text(Take(1)[0])); break;              // SHORT_BINSTRING, SHORT_BINUNICODE
            case 'T' or 'X': Push(Text(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)))); break;   // BINSTRING, BINUNICODE

            case '}': Push(new PickleDictionary()); break;                  // EMPTY_DICT
            case ']': Push(new PickleSequence(new(0))); break;              // EMPTY_LIST
            case ')': Push(new PickleSequence(new(0))); break;              // EMPTY_TUPLE
            case 't': Push(new PickleSequence(ToMark())); break;            // TUPLE
            case '\x85': PushTuple(1); break;                               // TUPLE1
            case '\x86': PushTuple(2); break;                               // TUPLE2
            case '\x87': PushTuple(3); break;                               // TUPLE3
            case 'a': Append([Pop()]); break;                               // APPEND
            case 'e': Append(ToMark()); break;                              // APPENDS
            case 's': { object? value = Pop(); SetItems([Pop(), value]); break; }               // SETITEM
            case 'u': SetItems(ToMark()); break;                            // SETITEMS

            case 'q': _memo[Take(1)[0]] = Peek(); break;                    // BINPUT
            case 'r': _memo[BinaryPrimitives.ReadUInt32LittleEndian(Take(4))] = Peek(); break;  // LONG_BINPUT
            case '\x94': _memo[(uint)_memo.Count] = Peek(); break;          // MEMOIZE
            case 'h': Push(Recall(Take(1)[0])); break;                      // BINGET
            case 'j': Push(Recall(BinaryPrimitives.ReadUInt32LittleEndian(Take(4)))); break;    // LONG_BINGET

            case 'c': Push(Global(Line(), Line())); break;                  // GLOBAL
            case '\x93': { object? name = Pop(); Push(Global(Pop() as string ?? "", name as string ?? "")); break; }    // STACK_GLOBAL
            case 'Q': Push(Storage(Pop())); break;                          // BINPERSID
            case 'R': { object? arguments = Pop(); Push(Call(Pop(), arguments)); break; }       // REDUCE
            case 'b': Build(Pop(), Peek()); break;                          // BUILD

            case 'i': throw Refused(Line(), Line());                        // INST: makes an object of a class named here
            case 'o' or '\x81' or '\x92': throw Bad("it wants objects of a class made; a checkpoint holds tensors and containers only");    // OBJ, NEWOBJ, NEWOBJ_EX
            default: throw Bad($"instruction 0x{code:x2} at {_at - 1} is not one of a dictionary of tensors");
        }

        return true;
    }

    private ReadOnlySpan<byte> Take(long length)
    {
        if (length > _bytes.Length - _at) throw Bad($"its pickle is truncated: {length} bytes are wanted at {_at}, {_bytes.Length - _at} are left");
        ReadOnlySpan<byte> taken = _bytes.Slice(_at, (int)length);
        _at += (int)length;
        return taken;
    }

    private string Text(long length)
    {
        ReadOnlySpan<byte> bytes = Take(length);
        try
        {
            return Utf8.GetString(bytes);
        }
        catch (DecoderFallbackException e)
        {
            throw new CheckpointException(_file, null, "a string in its pickle is no UTF-8", e);
        }
    }

    private string Line()
    {
        int length = _bytes[_at..].IndexOf((byte)'\n');
        if (length < 0 || length > MaxName) throw Bad($"the name at {_at} in its pickle does not end");
        string line = Text(length);
        _at++;
        return line;
    }

    private long Long()
    {
        int length = Take(1)[0];
        if (length > 8) throw Bad($"a number of {length} bytes is more than any size takes");
        ReadOnlySpan<byte> bytes = Take(length);
        if (length == 0) return 0;
        long number = (sbyte)bytes[^1];
        for (int i = length - 2; i >= 0; i--) number = (number << 8) | bytes[i];
        return number;
    }

    private void Count()
    {
        if (++_values > MaxValues) throw Bad($"its pickle makes more than {MaxValues} values");
    }

    private void Push(object? value)
    {
        Count();
        _stack.Add(value);
    }

    // Nothing below the last mark can be taken.
    private readonly int Floor => _marks.Count > 0 ? _marks[^1] : 0;

    private object? Peek() => _stack.Count > Floor ? _stack[^1] : throw Bad($"its pickle takes a value at {_at} that is not there");

    private object? Pop()
    {
        object? value = Peek();
        _stack.RemoveAt(_stack.Count - 1);
        return value;
    }

    private void PopOrUnmark()
    {
        if (_marks.Count > 0 && _stack.Count == _marks[^1]) _marks.RemoveAt(_marks.Count - 1);
        else Pop();
    }

    private List<object?> ToMark()
    {
        if (_marks.Count == 0) throw Bad($"its pickle takes values back to a mark at {_at} that is not there");
        int mark = _marks[^1];
        _marks.RemoveAt(_marks.Count - 1);
        List<object?> items = _stack.GetRange(mark, _stack.Count - mark);
        _stack.RemoveRange(mark, items.Count);
        return items;
    }

    private void PushTuple(int length)
    {
        if (_stack.Count - Floor < length) throw Bad($"its pickle takes {length} values at {_at} that are not there");
        List<object?> items = _stack.GetRange(_stack.Count - length, length);
        _stack.RemoveRange(_stack.Count - length, length);
        Push(new PickleSequence(items));
    }

    private void Append(List<object?> items)
    {
        if (Peek() is not PickleSequence list) throw Bad($"its pickle appends at {_at} to what is no list");
        list.Items.AddRange(items);
    }

    private void SetItems(List<object?> items)
    {
        if (Peek() is not PickleDictionary dictionary) throw Bad($"its pickle sets keys at {_at} of what is no dictionary");
        if (items.Count % 2 != 0) throw Bad($"its pickle sets a key at {_at} without a value");
        for (int i = 0; i < items.Count; i += 2) dictionary.Items.Add((items[i], items[i + 1]));
    }

    private object? Recall(uint index) => _memo.TryGetValue(index, out object? value) ? value : throw Bad($"its pickle recalls value {index}, which it has not kept");

    private PickleGlobal Global(string module, string name) => PickleGlobal.Find(module, name) ?? throw Refused(module, name);

    private PickleStorage Storage(object? id) =>
        id is PickleSequence { Items: ["storage", PickleGlobal { Stored: StoredElement element }, string key, string, long count] } && count >= 0
        ? new PickleStorage(element, key, count)
        : throw Bad("expected storages as ('storage', type, key, location, count)");

    private object Call(object? function, object? arguments)
    {
        if (function is not PickleGlobal global) throw Bad($"its pickle calls at {_at} what is no function");
        if (arguments is not PickleSequence { Items: var items }) throw Bad($"{global.Name}: expected a tuple of arguments");
        return (global.Kind, items) switch
        {
            (PickleGlobalKind.OrderedDictionary, []) => new PickleDictionary(),
            (PickleGlobalKind.Size, [PickleSequence sizes]) => sizes,
            (PickleGlobalKind.RebuildParameter, [PickleTensor tensor, bool, _]) => tensor,
            (PickleGlobalKind.RebuildTensor, [PickleStorage storage, long offset, PickleSequence shape, PickleSequence strides, bool, _, ..]) =>
                Tensor(storage, offset, shape.Items, strides.Items),
            _ => throw Bad($"{global.Name}: called with arguments that it does not take"),
        };
    }

    private PickleTensor Tensor(PickleStorage storage, long offset, List<object?> shape, List<object?> strides)
    {
        if (shape.Count > SafetensorsHeader.MaxRank || shape.Count != strides.Count)
            throw Bad($"a tensor with {shape.Count} sizes and {strides.Count} strides: expected as many, at most {SafetensorsHeader.MaxRank}");
        var tensor = new PickleTensor(storage, offset, new int[shape.Count], new long[shape.Count]);
        // The last element's place, if there is one; 16 products of 31 and 63 bits fit into 128.
        Int128 last = offset;
        bool empty = false;
        for (int i = 0; i < shape.Count; i++)
        {
            if (shape[i] is not long size || size is < 0 or > int.MaxValue) throw Bad($"a tensor's sizes: expected numbers from 0 to {int.MaxValue}, got {shape[i] ?? "None"}");
            if (strides[i] is not long stride || stride < 0) throw Bad($"a tensor's strides: expected numbers from 0 on, got {strides[i] ?? "None"}");
            (tensor.Shape[i], tensor.Strides[i]) = ((int)size, stride);
            empty |= size == 0;
            last += (Int128)(size - 1) * stride;
        }

        if (offset < 0 || (!empty && last >= storage.Count))
            throw Bad($"a tensor [{string.Join(", ", tensor.Shape)}] at {offset} reaches past its storage of {storage.Count} elements");
        return tensor;
    }

    // A state dictionary carries its modules' versions as attributes: of no use here, and data like the rest.
    private void Build(object? state, object? target)
    {
        if (target is not PickleDictionary || state is not PickleDictionary) throw Bad("it sets attributes of what is no dictionary; a checkpoint holds tensors and containers only");
    }

    private CheckpointException Refused(string module, string name) =>
        Bad($"'{module}.{name}' is refused: a checkpoint holds tensors and containers only, and nothing in it is run");

    private readonly CheckpointException Bad(string message) => new(_file, null, message);
}
