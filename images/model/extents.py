"""Extents: half-open byte ranges, and the few operations on sorted lists of them."""

from collections.abc import Iterable, Iterator

import msgspec


class Extent(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Bytes ``start`` to ``end``, ``end`` not included."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"an extent from {self.start} to {self.end}")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join touching and overlapping extents of an iterable that is sorted by start.

    Raises:
        ValueError: the iterable is not sorted.
    """
    current: Extent | None = None
    for extent in extents:
        if extent.size == 0:
            continue
        if current is None:
            current = extent
        elif extent.start < current.start:
            raise ValueError(f"extents out of order: {extent.start} after {current.start}")
        elif extent.start <= current.end:
            current = Extent(current.start, max(current.end, extent.end))
        else:
            yield current
            current = extent
    if current is not None:
        yield current


def clip(extents: Iterable[Extent], bounds: Extent) -> Iterator[Extent]:
    """The parts of sorted ``extents`` that lie inside ``bounds``."""
    for extent in extents:
        start, end = max(extent.start, bounds.start), min(extent.end, bounds.end)
        if start < end:
            yield Extent(start, end)


def gaps(extents: Iterable[Extent], bounds: Extent) -> Iterator[Extent]:
    """What merged, sorted ``extents`` leave free inside ``bounds``."""
    position = bounds.start
    for extent in clip(extents, bounds):
        if extent.start > position:
            yield Extent(position, extent.start)
        position = max(position, extent.end)
    if position < bounds.end:
        yield Extent(position, bounds.end)


def total(extents: Iterable[Extent]) -> int:
    """Bytes covered by merged extents."""
    return sum(extent.size for extent in extents)
