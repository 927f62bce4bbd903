"""The ground: what of a volume's range is not streamed.

Zero chunks are zeroed, what is not allocated is discarded, what is kept is counted. It is carried out beside the stream
and in bulk: making a hole in an image file waits until every write to that file is done.
"""

import msgspec

from images.model.extents import Extent
from images.store.pages import Slot
from restore.stream.placed import Placed
from restore.stream.route import Route, pieces

#: Extents that are collected before they are carried out: a volume can have millions.
COLLECTED = 1 << 16


class StreamCount(msgspec.Struct, frozen=True):
    """Bytes of a stream: written, kept because they matched already, zeroed, discarded because nobody needs them.

    ``rewritten``: bytes that read back wrong and were written once more, from a fresh fetch.
    """

    written: int = 0
    kept: int = 0
    zeroed: int = 0
    discarded: int = 0
    rewritten: int = 0

    def __add__(self, other: "StreamCount") -> "StreamCount":
        return StreamCount(
            self.written + other.written,
            self.kept + other.kept,
            self.zeroed + other.zeroed,
            self.discarded + other.discarded,
            self.rewritten + other.rewritten,
        )


class Ground:
    """What of a volume's range is not streamed: zero chunks, chunks that are kept, and what is not allocated."""

    def __init__(self, route: Route, placed: Placed) -> None:
        self._route = route
        self._placed = placed
        self._zeros: list[Extent] = []
        self._free: list[Extent] = []
        self._at = 0
        self._count = StreamCount()
        self.kept = 0

    def meet(self, slot: Slot, kept: bool) -> None:
        """The next chunk, in order."""
        start = slot.number * self._route.chunk
        end = start + self._placed.length(slot.number, self._route.chunk)
        if start > self._at:
            self._free.append(Extent(self._at, start))
        self._at = end
        if kept:
            self._count += StreamCount(kept=end - start)
            self.kept += end - start if slot.id is not None else 0
        elif slot.id is None:
            first = self._zeros.pop().start if self._zeros and self._zeros[-1].end == start else start
            self._zeros.append(Extent(first, end))
        if len(self._zeros) + len(self._free) > COLLECTED:
            self._carry_out()

    def finish(self) -> StreamCount:
        """Zero and discard what is left; what was zeroed, kept and discarded altogether."""
        if self._at < self._placed.volume.size:
            self._free.append(Extent(self._at, self._placed.volume.size))
        self._carry_out()
        return self._count

    def _carry_out(self) -> None:
        target, offset = self._route.target, self._placed.offset
        for extent in (piece for zeros in self._zeros for piece in pieces(zeros, self._route.halt)):
            target.zero(offset + extent.start, extent.size)
            self._count += StreamCount(zeroed=extent.size)
        free = self._free if self._route.discard else []
        for extent in (piece for unused in free for piece in pieces(unused, self._route.halt)):
            if target.discard(offset + extent.start, extent.size):
                self._count += StreamCount(discarded=extent.size)
        self._zeros, self._free = [], []
