using System.Reflection;
using System.Runtime.CompilerServices;
using global::ILGPU;
using global::ILGPU.Backends;
using global::ILGPU.Backends.OpenCL;
using global::ILGPU.IR;
using global::ILGPU.IR.Intrinsics;
using global::ILGPU.IR.Values;
using global::ILGPU.Util;

namespace Treeline.Kernels.ILGPU;

/// <summary>Rows of up to sixteen channels of a product, all by one thread: what an OpenCL made of a CPU keeps in vector registers.</summary>
/// <remarks>
/// The methods' bodies say what is computed; OpenCL gets them as functions over vectors, because a compiler that is given single numbers finds the vectors in some places and not in others, and takes its time over it.
/// Each number is one chain of fused multiply-adds in the order of the steps. Sixteen channels of the right side and of values are always read, and rows of theirs in fours; what lies past the last ones goes nowhere.
/// The functions are calls, because the compiler would take long over so many copies of them, and not static: LLVM writes an address of shared memory that is the same in all calls into a static function, where PoCL,
/// which gives shared memory its place later, does not look for it.
/// </remarks>
internal static class Patch
{
    /// <summary>Channels.</summary>
    public const int Channels = 16;

    /// <summary>Rows that are computed together.</summary>
    public const int Rows = 4;

    /// <summary>The functions in OpenCL C.</summary>
    public const string OpenCL = """
        typedef float float16u __attribute__((ext_vector_type(16), aligned(4)));
        typedef float float8u __attribute__((ext_vector_type(8), aligned(4)));
        typedef float float4u __attribute__((ext_vector_type(4), aligned(4)));
        #define PATCH __attribute__((noinline))
        #define PART static inline __attribute__((always_inline))
        #define ADD(r, n) s##r = fma((float16)(n), x, s##r);
        #define NEXT(p, step) x = *(global const float16u*)p; p += step;
        #define STORE(r) if (r < rows) patch_store(to + r * toRow, s##r, channels);

        PART void patch_store(global float* to, float16 x, int channels)
        {
            if (channels >= 16) *(global float16u*)to = x;
            else if (channels == 8) *(global float8u*)to = x.lo;
            else for (int i = 0; i < channels; i++) to[i] = x[i];
        }

        PART float16 patch_load(global const float* from, int channels)
        {
            float16 x = 0;
            if (channels >= 16) return *(global const float16u*)from;
            for (int i = 0; i < channels; i++) x[i] = from[i];
            return x;
        }

        #define STEP(r) ADD(r, left[row##r])
        PART void patch_rows(global float* to, long toRow, global const float* from, long fromRow, int begun, global const float* left, long row, long step, global const float* right, long rightStep,
            int steps, int causal, int rows, int channels)
        {
            const long row0 = 0, row1 = rows > 1 ? row : 0, row2 = rows > 2 ? 2 * row : row1, row3 = rows > 3 ? 3 * row : row2;
            float16 x, s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            if (begun)
            {
                s0 = patch_load(from, channels);
                if (rows > 1) s1 = patch_load(from + fromRow, channels);
                if (rows > 2) s2 = patch_load(from + 2 * fromRow, channels);
                if (rows > 3) s3 = patch_load(from + 3 * fromRow, channels);
            }

            for (int k = 0; k < steps; k++) { NEXT(right, rightStep) STEP(0) STEP(1) STEP(2) STEP(3) left += step; }
            if (causal)
            {
                NEXT(right, rightStep) STEP(0) STEP(1) STEP(2) STEP(3) left += step;
                NEXT(right, rightStep) STEP(1) STEP(2) STEP(3) left += step;
                NEXT(right, rightStep) STEP(2) STEP(3) left += step;
                NEXT(right, rightStep) STEP(3)
            }
            STORE(0) STORE(1) STORE(2) STORE(3)
        }

        PATCH void patch_product(global float* to, long toRow, global const float* from, long fromRow, int begun, global const float* left, long row, long step, global const float* right, long rightStep,
            int steps, int causal, int rows, int channels)
        {
            int r = 0;
            if (!begun && channels >= 16)
                for (; r + 4 <= rows; r += 4) patch_rows(to + r * toRow, toRow, from, 0, 0, left + r * row, row, step, right, rightStep, steps + causal * r, causal, 4, 16);
            for (; r < rows; r += 4)
                patch_rows(to + r * toRow, toRow, from + r * fromRow, fromRow, begun, left + r * row, row, step, right, rightStep, steps + causal * r, causal, rows - r, channels);
        }

        #define TAP(r) ADD(r, taps[r])
        #define FEW(r) for (int t = 0; t < count; t++) { x = *(global const float16u*)(value + (r - t) * step); ADD(r, taps[t]) }
        PART void patch_filter_rows(global float* to, long toRow, global const float* taps, int count, global const float* value, long step, int rows, int channels)
        {
            float16 x, s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            if (count < 4) { FEW(0) FEW(1) FEW(2) FEW(3) }
            else
            {
                value += 3 * step;
                taps -= 3;
                NEXT(value, -step) TAP(3) taps++;
                NEXT(value, -step) TAP(2) TAP(3) taps++;
                NEXT(value, -step) TAP(1) TAP(2) TAP(3) taps++;
                for (int t = 3; t < count; t++) { NEXT(value, -step) TAP(0) TAP(1) TAP(2) TAP(3) taps++; }
                NEXT(value, -step) TAP(0) TAP(1) TAP(2) taps++;
                NEXT(value, -step) TAP(0) TAP(1) taps++;
                NEXT(value, -step) TAP(0)
            }
            STORE(0) STORE(1) STORE(2) STORE(3)
        }

        PATCH void patch_filter(global float* to, long toRow, global const float* taps, int count, global const float* value, long step, int rows, int channels)
        {
            int r = 0;
            if (channels >= 16)
                for (; r + 4 <= rows; r += 4) patch_filter_rows(to + r * toRow, toRow, taps, count, value + r * step, step, 4, 16);
            for (; r < rows; r += 4) patch_filter_rows(to + r * toRow, toRow, taps, count, value + r * step, step, rows - r, channels);
        }

        PATCH void patch_join(global float* to, long toRow, float scale, global const float* x, global const float* y, global const float* z, long row, int rows, int count)
        {
            for (; rows > 0; rows--, to += toRow, x += row, y += row, z += row)
            {
                int i = 0;
                for (; i + 8 <= count; i += 8)
                    *(global float8u*)(to + i) = fma((float8)(scale), *(global const float8u*)(x + i), *(global const float8u*)(y + i)) + *(global const float8u*)(z + i);
                for (; i < count; i++) to[i] = fma(scale, x[i], y[i]) + z[i];
            }
        }

        PATCH void patch_copy(global float* to, long toRow, global const float* from, long fromRow, int rows, int count)
        {
            for (; rows > 0; rows--, to += toRow, from += fromRow)
            {
                int i = 0;
                for (; i + 8 <= count; i += 8) *(global float8u*)(to + i) = *(global const float8u*)(from + i);
                for (; i < count; i++) to[i] = from[i];
            }
        }

        PART void patch_fetch(global const float* x, int count)
        {
            for (int i = 0; i < count; i += 16) __builtin_prefetch((const void*)(ulong)(x + i));
        }

        PART float patch_squares_of(global const float* x, float scale, int count)
        {
            float4 s = 0;
            int i = 0;
            for (; i + 4 <= count; i += 4)
            {
                float4 y = *(global const float4u*)(x + i) * scale;
                s = fma(y, y, s);
            }
            for (; i < count; i++) s.x = fma(x[i] * scale, x[i] * scale, s.x);
            return (s.x + s.y) + (s.z + s.w);
        }

        PATCH void patch_squares(global float* to, global const float* x, long row, float scale, int rows, int count)
        {
            int r = 0;
            if (count % 4 == 0)
            {
                // Four rows side by side: each sum waits for its last step.
                for (; r + 4 <= rows; r += 4, x += 4 * row)
                {
                    float4 s0 = 0, s1 = 0, s2 = 0, s3 = 0;
                    for (int i = 0; i < count; i += 4)
                    {
                        float4 y0 = *(global const float4u*)(x + i) * scale, y1 = *(global const float4u*)(x + row + i) * scale;
                        float4 y2 = *(global const float4u*)(x + 2 * row + i) * scale, y3 = *(global const float4u*)(x + 3 * row + i) * scale;
                        s0 = fma(y0, y0, s0);
                        s1 = fma(y1, y1, s1);
                        s2 = fma(y2, y2, s2);
                        s3 = fma(y3, y3, s3);
                    }
                    to[r] = (s0.x + s0.y) + (s0.z + s0.w);
                    to[r + 1] = (s1.x + s1.y) + (s1.z + s1.w);
                    to[r + 2] = (s2.x + s2.y) + (s2.z + s2.w);
                    to[r + 3] = (s3.x + s3.y) + (s3.z + s3.w);
                }
            }
            for (; r < rows; r++, x += row) to[r] = patch_squares_of(x, scale, count);
        }

        #define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
        #define HIGH(a, b) __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
        #define FIRST(a, b) __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
        #define SECOND(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
        #define FRONT(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
        #define BACK(a, b) __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
        #define SCALED(r) const float8 a##r = *(global const float8u*)(x + r * row + i) * scale * factors[r];
        #define COLUMN(c, v) *(global float8u*)(to + (i + c) * toStep) = v;
        PATCH void patch_scale(global float* to, long toRow, long toStep, global const float* x, long row, float scale, global const float* factors, int rows, int count)
        {
            for (; toRow == 1 && toStep != 1 && count % 8 == 0 && rows >= 8; rows -= 8, to += 8, x += 8 * row, factors += 8)
            {
                for (int i = 0; i < count; i += 8)
                {
                    SCALED(0) SCALED(1) SCALED(2) SCALED(3) SCALED(4) SCALED(5) SCALED(6) SCALED(7)
                    const float8 b0 = LOW(a0, a1), b1 = HIGH(a0, a1), b2 = LOW(a2, a3), b3 = HIGH(a2, a3), b4 = LOW(a4, a5), b5 = HIGH(a4, a5), b6 = LOW(a6, a7), b7 = HIGH(a6, a7);
                    const float8 c0 = FIRST(b0, b2), c1 = SECOND(b0, b2), c2 = FIRST(b1, b3), c3 = SECOND(b1, b3), c4 = FIRST(b4, b6), c5 = SECOND(b4, b6), c6 = FIRST(b5, b7), c7 = SECOND(b5, b7);
                    COLUMN(0, FRONT(c0, c4)) COLUMN(1, FRONT(c1, c5)) COLUMN(2, FRONT(c2, c6)) COLUMN(3, FRONT(c3, c7))
                    COLUMN(4, BACK(c0, c4)) COLUMN(5, BACK(c1, c5)) COLUMN(6, BACK(c2, c6)) COLUMN(7, BACK(c3, c7))
                }
            }
            for (; rows > 0; rows--, to += toRow, x += row, factors++)
            {
                int i = 0;
                if (toStep == 1)
                    for (; i + 8 <= count; i += 8) *(global float8u*)(to + i) = *(global const float8u*)(x + i) * scale * *factors;
                for (; i < count; i++) to[i * toStep] = x[i] * scale * *factors;
            }
        }

        """;

    /// <summary>to[r][i] = from[r][i] + Σ_k left[k][r] · right[k][i] of the first rows.</summary>
    /// <param name="to">The first sum.</param>
    /// <param name="toRow">Numbers from one row's sums to the next one's.</param>
    /// <param name="from">What the sums begin with.</param>
    /// <param name="fromRow">Numbers from one row's to the next one's.</param>
    /// <param name="begun">0: they begin with 0, and <paramref name="from"/> is not read.</param>
    /// <param name="left">The left side's first number.</param>
    /// <param name="row">Numbers from one row to the next.</param>
    /// <param name="step">Numbers from one step to the next.</param>
    /// <param name="right">The right side's first number.</param>
    /// <param name="rightStep">Numbers from one step to the next.</param>
    /// <param name="steps">Steps.</param>
    /// <param name="causal">1: row r takes r + 1 steps more.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="channels">Channels.</param>
    [IntrinsicImplementation]
    public static void Product(
        ref float to, long toRow, ref float from, long fromRow, int begun, ref float left, long row, long step, ref float right, long rightStep, int steps, int causal, int rows, int channels)
    {
        for (int r = 0; r < rows; r++)
        {
            for (int i = 0; i < channels; i++)
            {
                float sum = begun != 0 ? Unsafe.Add(ref from, (nint)(r * fromRow + i)) : 0;
                Unsafe.Add(ref to, (nint)(r * toRow + i)) = Chain(sum, ref Unsafe.Add(ref left, (nint)(r * row)), step, ref Unsafe.Add(ref right, i), rightStep, steps + causal * (r + 1));
            }
        }
    }

    /// <summary>to[r][i] = Σ_t taps[t] · value[r - t][i]: values before the first row's own lie before it.</summary>
    [IntrinsicImplementation]
    public static void Filter(ref float to, long toRow, ref float taps, int count, ref float value, long step, int rows, int channels)
    {
        for (int r = 0; r < rows; r++)
        {
            for (int i = 0; i < channels; i++)
                Unsafe.Add(ref to, (nint)(r * toRow + i)) = Chain(0, ref taps, 1, ref Unsafe.Add(ref value, (nint)(r * step + i)), -step, count);
        }
    }

    /// <summary>to[r][i] = scale · x[r][i] + y[r][i], rounded once, + z[r][i].</summary>
    [IntrinsicImplementation]
    public static void Join(ref float to, long toRow, float scale, ref float x, ref float y, ref float z, long row, int rows, int count)
    {
        for (int r = 0; r < rows; r++)
        {
            for (int i = 0; i < count; i++)
            {
                nint at = (nint)(r * row + i);
                Unsafe.Add(ref to, (nint)(r * toRow + i)) = MathF.FusedMultiplyAdd(scale, Unsafe.Add(ref x, at), Unsafe.Add(ref y, at)) + Unsafe.Add(ref z, at);
            }
        }
    }

    /// <summary>to[r] = Σ (scale · x[r][i])², in four sums by channel.</summary>
    [IntrinsicImplementation]
    public static void Squares(ref float to, ref float x, long row, float scale, int rows, int count)
    {
        Span<float> sums = stackalloc float[4];
        for (int r = 0; r < rows; r++)
        {
            sums.Clear();
            for (int i = 0; i < count; i++)
            {
                float y = Unsafe.Add(ref x, (nint)(r * row + i)) * scale;
                ref float sum = ref sums[i < count - count % 4 ? i % 4 : 0];
                sum = MathF.FusedMultiplyAdd(y, y, sum);
            }

            Unsafe.Add(ref to, r) = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }

    /// <summary>to[r · toRow + i · toStep] = x[r][i] · scale · factors[r].</summary>
    [IntrinsicImplementation]
    public static void Scale(ref float to, long toRow, long toStep, ref float x, long row, float scale, ref float factors, int rows, int count)
    {
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < count; i++) Unsafe.Add(ref to, (nint)(r * toRow + i * toStep)) = Unsafe.Add(ref x, (nint)(r * row + i)) * scale * Unsafe.Add(ref factors, r);
    }

    /// <summary>to[r][i] = from[r][i].</summary>
    [IntrinsicImplementation]
    public static void Copy(ref float to, long toRow, ref float from, long fromRow, int rows, int count)
    {
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < count; i++) Unsafe.Add(ref to, (nint)(r * toRow + i)) = Unsafe.Add(ref from, (nint)(r * fromRow + i));
    }

    /// <summary>Computes nothing: numbers that will be read soon come to the cache meanwhile.</summary>
    [IntrinsicImplementation]
    public static void Fetch(ref float x, int count)
    {
    }

    /// <summary>Tells a context, before its first kernel, what OpenCL calls them.</summary>
    public static void Register(Context context)
    {
        foreach (string name in (ReadOnlySpan<string>)[nameof(Product), nameof(Filter), nameof(Join), nameof(Squares), nameof(Scale), nameof(Copy), nameof(Fetch)])
            context.GetIntrinsicManager().RegisterMethod(typeof(Patch).GetMethod(name)!, new CLIntrinsic(typeof(Patch), nameof(Emit), IntrinsicImplementationMode.GenerateCode));
    }

    private static float Chain(float sum, ref float left, long step, ref float right, long rightStep, int steps)
    {
        for (int k = 0; k < steps; k++) sum = MathF.FusedMultiplyAdd(Unsafe.Add(ref left, (nint)(k * step)), Unsafe.Add(ref right, (nint)(k * rightStep)), sum);
        return sum;
    }

    // A call of the function that has the method's name; an address is taken as one of global memory, whatever memory it is in: a CPU has one.
    private static void Emit(CLBackend backend, CLCodeGenerator generator, Value value)
    {
        MethodBase method = ((MethodCall)value).Target.Source;
        ParameterInfo[] parameters = method.GetParameters();
        var arguments = new VariableAllocator.Variable[parameters.Length];
        for (int i = 0; i < arguments.Length; i++) arguments[i] = generator.Load(value[i]);
        using CLCodeGenerator.StatementEmitter statement = generator.BeginStatement((RawString)$"patch_{method.Name.ToLowerInvariant()}");
        statement.BeginArguments();
        for (int i = 0; i < arguments.Length; i++)
        {
            statement.AppendArgument();
            if (parameters[i].ParameterType.IsByRef) statement.AppendCommand("(global float*)(ulong)");
            statement.Append(arguments[i]);
        }

        statement.EndArguments();
    }
}
