using Treeline.Kernels;

namespace Treeline.Cli.Cases;

/// <summary>A named array on the host that a case has computed.</summary>
internal sealed class CaseTensor
{
    private readonly Array _numbers;

    private CaseTensor(string name, ElementType type, int[] shape, Array numbers)
    {
        Name = name;
        Type = type;
        Shape = shape;
        _numbers = numbers;
    }

    public string Name { get; }

    public ElementType Type { get; }

    public int[] Shape { get; }

    public static CaseTensor Of(string name, float[] numbers, params int[] shape) => new(name, ElementType.Float32, shape, numbers);

    public static CaseTensor Of(string name, int[] numbers, params int[] shape) => new(name, ElementType.Int32, shape, numbers);

    public static CaseTensor Of(string name, long[] numbers, params int[] shape) => new(name, ElementType.Int64, shape, numbers);

    /// <summary>The numbers as float32.</summary>
    public float[] Floats() => (float[])_numbers;

    /// <summary>The whole numbers as int32; token ids and nodes all fit.</summary>
    public int[] Integers() => _numbers as int[] ?? Array.ConvertAll((long[])_numbers, checked(x => (int)x));

    public void AddTo(SafetensorsWriter writer)
    {
        switch (_numbers)
        {
            case float[] floats: writer.Add(Name, Shape, floats); break;
            case int[] integers: writer.Add(Name, Shape, integers); break;
            case long[] integers: writer.Add(Name, Shape, integers); break;
        }
    }

    public override string ToString() => $"{Name} [{string.Join(", ", Shape)}] {Type}";
}
