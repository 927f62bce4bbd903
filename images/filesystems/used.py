"""What a filesystem reader answers: what lies here, and which extents hold data (DESIGN §6)."""

from collections.abc import Callable, Iterator

import msgspec

from images.model.extents import Extent
from images.model.layout import Filesystem


class UsedMap(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about one volume.

    Attributes:
        filesystem: what it is.
        trusted: whether its allocation map was believed. When False, ``extents`` yields the whole
            volume and ``reason`` says why, in words for the user.
        reason: empty when trusted.
        extents: a function that yields the extents to keep: merged, sorted, inside the volume.
            Everything not yielded may be anything after a restore.
        expected: it is kept whole because somebody asked for that, or because its role needs no filesystem: nothing to
            be warned of.
    """

    filesystem: Filesystem
    trusted: bool
    extents: Callable[[], Iterator[Extent]]
    reason: str = ""
    expected: bool = False


def whole(filesystem: Filesystem, size: int, reason: str) -> UsedMap:
    """The answer for a volume whose map cannot be believed: all of it."""
    return UsedMap(filesystem=filesystem, trusted=False, reason=reason, extents=lambda: iter((Extent(0, size),)))
