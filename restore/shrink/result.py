"""What came of making a filesystem smaller, as pieces for a target: bytes to write, zeros, and what nobody needs.

Which is which follows from two lists: what the filesystem uses, and what the overlay holds. Nothing is written here.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from core.units import MIB, align_down, align_up
from images.model.extents import Extent, clip, merge
from images.overlay import BLOCK, Overlay

#: Bytes of one piece at most.
PIECE = 2 * MIB


class Lot(StrEnum):
    """What becomes of a range. ``data``: written; ``zero``: zeroed; ``free``: no file needs it."""

    DATA = "data"
    ZERO = "zero"
    FREE = "free"


class Piece(msgspec.Struct, frozen=True):
    """A range of the new volume, in whole blocks of the overlay but for the last one, and its lot."""

    extent: Extent
    lot: Lot


class Shrunk(msgspec.Struct, frozen=True):
    """A volume that was made smaller.

    Attributes:
        overlay: has the size of the new partition.
        used: extents the filesystem uses, merged and sorted; None: nobody knows, and everything counts.
        notes: what the person should know, a line each.
    """

    overlay: Overlay
    used: Callable[[], Iterator[Extent]] | None
    notes: tuple[str, ...] = ()

    def pieces(self) -> Iterator[Piece]:
        """The whole volume, in order; the same ones each time."""
        bounds = Extent(0, self.overlay.size)
        used = self.used() if self.used is not None else iter((bounds,))
        return divide(_blocks(used, bounds), _blocks(self.overlay.held(), bounds), bounds)


def divide(used: Iterable[Extent], held: Iterable[Extent], bounds: Extent) -> Iterator[Piece]:
    """The lots of ``bounds``: data where both lists have it, zeros where it is used and not held, the rest is free.

    Args:
        used, held: merged, sorted, inside ``bounds``.
    """
    holding, at = iter(held), bounds.start
    current = next(holding, None)
    for extent in used:
        yield from _cut(Extent(at, extent.start), Lot.FREE)
        at = extent.start
        while at < extent.end:
            while current is not None and current.end <= at:
                current = next(holding, None)
            if current is None or current.start >= extent.end:
                end, lot = extent.end, Lot.ZERO
            elif current.start > at:
                end, lot = current.start, Lot.ZERO
            else:
                end, lot = min(current.end, extent.end), Lot.DATA
            yield from _cut(Extent(at, end), lot)
            at = end
    yield from _cut(Extent(at, bounds.end), Lot.FREE)


def _blocks(extents: Iterable[Extent], bounds: Extent) -> Iterator[Extent]:
    """Extents rounded up to whole blocks: targets are written in their sectors, and in few requests."""
    rounded = (Extent(align_down(extent.start, BLOCK), align_up(extent.end, BLOCK)) for extent in extents)
    return clip(merge(rounded), bounds)


def _cut(extent: Extent, lot: Lot) -> Iterator[Piece]:
    """A range as one piece, or data as pieces that fit a buffer."""
    if extent.size and lot is not Lot.DATA:
        yield Piece(extent, lot)
        return
    for start in range(extent.start, extent.end, PIECE):
        yield Piece(Extent(start, min(start + PIECE, extent.end)), lot)
