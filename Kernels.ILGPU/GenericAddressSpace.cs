using global::ILGPU.Runtime.OpenCL;

namespace Treeline.Kernels.ILGPU;

/// <summary>Makes ILGPU take an OpenCL device that reports no generic address space (PoCL before 4), which these kernels do not need.</summary>
internal static class GenericAddressSpace
{
    // ILGPU has no switch for it: the capability is a property whose setter is internal.
    public static void Claim(CLDevice device) =>
        (typeof(CLCapabilityContext).GetProperty(nameof(CLCapabilityContext.GenericAddressSpace))?.GetSetMethod(nonPublic: true)
            ?? throw new NotSupportedException("this version of ILGPU does not let its capabilities be set")).Invoke(device.Capabilities, [true]);
}
