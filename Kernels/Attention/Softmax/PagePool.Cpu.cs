using System.Runtime.InteropServices;

namespace Treeline.Kernels;

/// <summary>Pages of keys and values, counted references to each: forks share them. Freed pages are kept for reuse until the pool ends.</summary>
/// <param name="floats">Numbers a page holds.</param>
internal sealed unsafe class PagePool(nint floats) : SafeHandle(0, ownsHandle: true)
{
    private const int HeaderBytes = HostMemory.Alignment;   // the numbers begin on a cache line
    private Header* _free;

    /// <summary>What lies before a page's numbers. The handle is the first of all pages.</summary>
    private struct Header
    {
        public Header* Next;
        public Header* NextFree;
        public int References;
    }

    public override bool IsInvalid => false;                // a pool without pages is a good pool

    /// <summary>Bytes of a page's numbers.</summary>
    public nint PageBytes => floats * sizeof(float);

    /// <summary>A page of undefined contents with one reference.</summary>
    /// <exception cref="OutOfDeviceMemoryException">There is no memory for it.</exception>
    public float* Take()
    {
        Header* page = _free;
        if (page != null) _free = page->NextFree;
        else page = Allocate();
        page->References = 1;
        return (float*)((byte*)page + HeaderBytes);
    }

    /// <summary>One reference more.</summary>
    public static void Share(float* page) => Of(page)->References++;

    /// <summary>True where others refer to the page too: it must not be written.</summary>
    public static bool IsShared(float* page) => Of(page)->References > 1;

    /// <summary>One reference less; without any the page is free.</summary>
    public void Release(float* page)
    {
        Header* header = Of(page);
        if (--header->References > 0) return;
        header->NextFree = _free;
        _free = header;
    }

    protected override bool ReleaseHandle()
    {
        for (var page = (Header*)handle; page != null;)
        {
            Header* next = page->Next;
            NativeMemory.AlignedFree(page);
            page = next;
        }

        return true;
    }

    private static Header* Of(float* page) => (Header*)((byte*)page - HeaderBytes);

    private Header* Allocate()
    {
        var page = (Header*)HostMemory.Allocate((nuint)(HeaderBytes + PageBytes));
        page->Next = (Header*)handle;
        SetHandle((nint)page);
        return page;
    }
}
