"""The trail: reading back what was written while the rest is still being written.

Writing a volume keeps the processor as busy as the device, so that a device which serves both at once has time for
reading. What is read back is flushed first, and is read past the page cache. Whether it pays is measured, not assumed:
where reading slows the writing down as much as it brings (a disk that has to seek, say), the trail stops, and what
is left is read back at the end. It never replaces the end: what it has seen is sampled again there, because
a disk that lies about its size puts later writes over earlier ones.
"""

import threading
import time
from collections.abc import Callable, Sequence

from core.units import MIB

#: Bytes written before the trail begins: they tell how fast writing alone is.
ALONE = 512 * MIB
#: Bytes that are flushed and read back together at least.
WINDOW = 64 * MIB
#: Bytes read back before it is judged whether that pays, and the factor by which bytes moved must have grown.
TRIAL, GAIN = 1024 * MIB, 1.05


class Trail:
    """Follows one writer. ``written`` is called by the writer's thread; the trail works in a thread of its own.

    Args:
        flush: makes everything written durable.
        read_back: compares chunks by number and gives the bytes compared; its errors are raised by :meth:`end`.
        chunk: bytes of a chunk.
    """

    def __init__(self, flush: Callable[[], None], read_back: Callable[[Sequence[int]], int], chunk: int) -> None:
        self._flush = flush
        self._read_back = read_back
        self._chunk = chunk
        self._waiting: list[int] = []
        self._seen: list[int] = []
        self._bytes = 0
        self._started = time.monotonic()
        self._alone_rate = 0.0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="trail", daemon=True)
        self._thread.start()

    def written(self, numbers: Sequence[int]) -> None:
        """Chunks that are on their way to the device, and may be read back after a flush."""
        with self._changed:
            self._waiting += numbers
            self._bytes += len(numbers) * self._chunk
            if not self._alone_rate and self._bytes >= ALONE:
                self._alone_rate = self._bytes / max(time.monotonic() - self._started, 1e-6)
            self._changed.notify()

    def end(self) -> frozenset[int]:
        """Stop after what is under way. Gives the chunks that were read back and are right.

        Raises:
            whatever reading back raised.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return frozenset(self._seen)

    def _follow(self) -> None:
        try:
            moved, since, read = 0, 0.0, 0
            while (numbers := self._next()) is not None:
                if not since:
                    since, moved = time.monotonic(), self._bytes
                self._flush()
                read += self._read_back(numbers)
                self._seen += numbers
                rate = (self._bytes - moved + read) / max(time.monotonic() - since, 1e-6)
                if read >= TRIAL and rate < GAIN * self._alone_rate:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised again where the trail ends
            self._failure = error

    def _next(self) -> list[int] | None:
        """The next chunks to read back, when there are enough; None at the end."""
        with self._changed:
            while not self._closed and (not self._alone_rate or len(self._waiting) * self._chunk < WINDOW):
                self._changed.wait()
            if self._closed:
                return None
            numbers, self._waiting = sorted(self._waiting), []
            return numbers
