"""Page-aligned buffers, as O_DIRECT needs them, lent to one user at a time.

A fixed number: whoever wants one more waits, which bounds both memory and the work under way.
Nothing is read or written here.
"""

import contextlib
import mmap
import queue


class Buffers:
    """A pool of buffers. Taking and giving back are safe from several threads.

    Args:
        count: how many there are.
        size: bytes of each, at least 1.
    """

    def __init__(self, count: int, size: int) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self.size = size
        for _ in range(count):
            self._free.put(memoryview(_pages(size)))

    def take(self) -> memoryview:
        """A writable buffer of ``size`` bytes that starts on a page boundary; waits until one is free."""
        return self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Give back what :meth:`take` lent."""
        self._free.put(buffer)


def _pages(size: int) -> mmap.mmap:
    """Memory in huge pages where the kernel has them: a device is handed 2 MiB at a time instead of 4 KiB, and writes
    a fifth faster (docs/performance.md)."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages
