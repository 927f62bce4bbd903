"""The trail: reading back what was written while the rest is still being written.

Writing a volume keeps the processor as busy as the device, so that a device which serves both at once has time for
reading. What is read back is flushed first, and is read past the page cache. Whether it pays is measured, not assumed:
where reading slows the writing down as much as it brings (a disk that has to seek, say), the trail stops, and what
is left is read back at the end. It never replaces the end: some chunks are never given to it, because
a disk that lies about its size puts later writes over earlier ones.
"""

import threading
import time
from collections.abc import Callable, Sequence

from core.units import MIB
from images.store.pages import Slot
from restore.stream.marks import Marks

#: Bytes written before the trail begins: they tell how fast writing alone is.
ALONE = 512 * MIB
#: Bytes that are flushed and read back together at least, and at most: who stops the work waits for the latter.
WINDOW, LARGEST = 64 * MIB, 256 * MIB
#: Bytes read back before it is judged whether that pays, and the factor by which bytes moved must have grown.
TRIAL, GAIN = 1024 * MIB, 1.05
#: Chunks that may wait. Those that come when so many do are left to the end: memory is bounded however slow reading is.
WAITING = 1 << 16


class Trail:
    """Follows one writer. ``written`` is called by the writer's thread; the trail works in a thread of its own.

    Args:
        flush: makes everything written durable.
        read_back: compares chunks with their ids and gives the numbers of those that are right.
        chunk: bytes of a chunk. count: chunks of the volume.
        clock: seconds, monotonic; a parameter so that tests own the time.
    """

    def __init__(
        self,
        flush: Callable[[], None],
        read_back: Callable[[Sequence[Slot]], Sequence[int]],
        chunk: int,
        count: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flush = flush
        self._read_back = read_back
        self._chunk = chunk
        self._clock = clock
        self._waiting: list[Slot] = []
        self._seen = Marks(count)
        self._bytes = 0
        self._started = clock()
        self._alone_rate = 0.0
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="trail", daemon=True)
        self._thread.start()

    def written(self, slots: Sequence[Slot]) -> None:
        """Chunks that are on their way to the device, and may be read back after a flush.

        Raises:
            whatever reading back raised: a device that fails is not written to the end.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._bytes += len(slots) * self._chunk
            if self._closed:
                return
            self._waiting += slots[: max(WAITING - len(self._waiting), 0)]
            if not self._alone_rate and self._bytes >= ALONE:
                self._alone_rate = self._bytes / max(self._clock() - self._started, 1e-6)
            self._changed.notify()

    def end(self) -> Marks:
        """Stop after what is under way. Gives the chunks that were read back and are right.

        Raises:
            whatever reading back raised.
        """
        self.abandon()
        if self._failure is not None:
            raise self._failure
        return self._seen

    def abandon(self) -> None:
        """Stop after what is under way; nobody wants to know what came of it, because the writer failed."""
        self._close()
        self._thread.join()

    def _close(self) -> None:
        """No more chunks are taken, and those that wait are let go."""
        with self._changed:
            self._closed = True
            self._waiting = []
            self._changed.notify()

    def _follow(self) -> None:
        try:
            moved, since, read = 0, 0.0, 0
            while slots := self._next():
                if not read:
                    since, moved = self._clock(), self._bytes
                self._flush()
                self._seen.update(self._read_back(slots))
                read += len(slots) * self._chunk
                rate = (self._bytes - moved + read) / max(self._clock() - since, 1e-6)
                if read >= TRIAL and rate < GAIN * self._alone_rate:
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again where the writer asks
            self._failure = error
        self._close()

    def _next(self) -> list[Slot]:
        """The next chunks to read back, in order, when there are enough; none at the end."""
        with self._changed:
            while not self._closed and (not self._alone_rate or len(self._waiting) * self._chunk < WINDOW):
                self._changed.wait()
            most = max(1, LARGEST // self._chunk)
            slots, self._waiting = self._waiting[:most], self._waiting[most:]
            return sorted(slots, key=lambda slot: slot.number)
