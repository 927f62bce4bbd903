"""Reading a source that has unreadable sectors: everything that can be read, zeros for the rest, and a map of it.

A range that fails is halved until single sectors fail. What that may cost is bounded, because a dying disk takes
seconds for every sector it gives up on; what is then not tried is lost as well, and counted as such. A disk that has
gone altogether is no bad sector: the work ends.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from core.errors import DeviceError
from core.units import align_down
from images.model.extents import Extent, merge
from images.sources import BlockSource, UnreadableSectorsError

#: Failing reads spent on one range that is asked for, a chunk at most, and seconds.
ATTEMPTS, SECONDS = 256, 60.0
#: The same for a range behind one of which nothing could be read: a dead region is not searched sector by sector.
ATTEMPTS_IN_DEAD = 7
#: Extents of a volume's map of what is lost; beyond, neighbours are joined with what lies between them.
LOST_LIMIT = 10_000


class Salvage:
    """Reads one volume. Safe from several threads.

    Args:
        source: what is read.
        alive: whether the disk still answers; asked when a range could not be read at all.
        on_loss: told once for each range of bytes that is lost.
    """

    def __init__(
        self,
        source: BlockSource,
        alive: Callable[[], bool] = lambda: True,
        on_loss: Callable[[Extent], None] = lambda _: None,
    ) -> None:
        self.source = source
        self._alive = alive
        self._on_loss = on_loss
        self._lost: list[Extent] = []
        self._dead = False
        self._lock = threading.Lock()

    def lost(self) -> tuple[Extent, ...]:
        """Bytes of the volume that could not be read, merged and sorted; at most :data:`LOST_LIMIT` extents."""
        with self._lock:
            found = tuple(merge(sorted(self._lost)))
        gap = self.source.sector_size
        while len(found) > LOST_LIMIT:
            widened = (Extent(extent.start, min(extent.end + gap, self.source.size)) for extent in found)
            found = tuple(merge(widened))
            gap *= 2
        return found

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; zeros where sectors cannot be read.

        Raises:
            DeviceError: the disk does not answer any more, or it failed in another way.
        """
        try:
            data = self.source.read_at(offset, length)
        except UnreadableSectorsError:
            return self._search(Extent(offset, offset + length))
        self._dead = False
        return data

    def _search(self, whole: Extent) -> bytes:
        """Read what can be read of a range that failed, halving what fails, the larger parts first."""
        data = bytearray(whole.size)
        attempts = ATTEMPTS_IN_DEAD if self._dead else ATTEMPTS
        until = time.monotonic() + SECONDS
        waiting = deque(self._halves(whole))
        lost: list[Extent] = [] if waiting else [whole]
        while waiting:
            part = waiting.popleft()
            if attempts <= 0 or time.monotonic() > until:
                lost.append(part)
                continue
            try:
                data[part.start - whole.start : part.end - whole.start] = self.source.read_at(part.start, part.size)
            except UnreadableSectorsError:
                attempts -= 1
                halves = self._halves(part)
                waiting.extend(halves)
                if not halves:
                    lost.append(part)
        found = tuple(merge(sorted(lost)))
        self._note(whole, found)
        return bytes(data)

    def _halves(self, part: Extent) -> tuple[Extent, ...]:
        """Two parts that meet on a sector; none when it is a single sector."""
        sector = self.source.sector_size
        middle = align_down((part.start + part.end) // 2, sector)
        if middle <= part.start:
            middle = align_down(part.start, sector) + sector
        return (Extent(part.start, middle), Extent(middle, part.end)) if middle < part.end else ()

    def _note(self, whole: Extent, lost: tuple[Extent, ...]) -> None:
        with self._lock:
            self._lost += lost
            self._dead = lost == (whole,)
        if self._dead and not self._alive():
            raise DeviceError(
                "The disk does not answer any more: it was unplugged, or it has failed altogether.",
                hint="What is stored so far is kept. Let the disk cool down, check its cable, and run the same again.",
            )
        for extent in lost:
            self._on_loss(extent)
