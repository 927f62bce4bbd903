"""Which files of a volume lie in given byte ranges: what a person asks when sectors were lost.

Files are found by their extents; what lies in no file is free space or the filesystem's own. No content is read.
"""

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.browse.entry import Kind, UnreadableError
from images.browse.tree import Found, Tree
from images.model.extents import Extent


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is hit.

    Attributes:
        path: in the volume; an alternate stream as ``file:stream``.
        ranges: byte ranges of the file that are hit, merged; empty when the file is compressed, and all of it may be.
    """

    path: str
    ranges: tuple[Extent, ...]


class HolderSearch:
    """One walk over a volume.

    Args:
        extents: of the volume, in bytes, merged and sorted.

    Attributes:
        problems: a sentence for everything that could not be looked at: it may be hit as well.
    """

    def __init__(self, tree: Tree, extents: tuple[Extent, ...]) -> None:
        self.problems: list[str] = []
        self._tree = tree
        self._extents = extents
        self._starts = [extent.start for extent in extents]

    def holders(self) -> Iterator[Holder]:
        """The files that are hit, each node once, in the order of the walk."""
        seen: set[int] = set()
        waiting = [self._tree.root]
        while waiting:
            folder = waiting.pop()
            below: list[Found] = []
            try:
                below.extend(self._tree.children(folder))
            except DamagedError as error:
                self.problems.append(error.message)
            for found in below:
                if found.entry.node in seen:
                    continue
                seen.add(found.entry.node)
                if found.entry.kind is Kind.FOLDER:
                    waiting.append(found)
                yield from self._hit(found)

    def _hit(self, found: Found) -> Iterator[Holder]:
        try:
            streams = list(self._tree.streams(found))
            for each in ([found] if found.entry.kind is Kind.FILE else []) + streams:
                content = self._tree.content(each)
                if not any(True for extent in content.extents for _ in self._common(extent)):
                    continue
                ranges = sorted(
                    Extent(common.start - segment.place + segment.offset, common.end - segment.place + segment.offset)
                    for segment in content.segments or ()
                    for common in self._common(Extent(segment.place, segment.place + segment.size))
                )
                yield Holder(path=each.path, ranges=tuple(ranges))
        except (DamagedError, UnreadableError) as error:
            self.problems.append(error.message)

    def _common(self, extent: Extent) -> Iterator[Extent]:
        """What of an extent is hit."""
        at = max(0, bisect_right(self._starts, extent.start) - 1)
        while at < len(self._extents) and self._extents[at].start < extent.end:
            start, end = max(extent.start, self._extents[at].start), min(extent.end, self._extents[at].end)
            if start < end:
                yield Extent(start, end)
            at += 1
