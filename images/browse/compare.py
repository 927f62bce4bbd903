"""What differs between two trees of files, in the time of what differs.

Names and facts of both are read; content is read only where it may differ: a part of a file that lies in the same
place of both volumes, in chunks that both have in common, is equal without a look. Equal sizes and times prove nothing
here. Times of access and change of status are not compared, nor the modification times of folders, which follow from
what is in them. A renamed file shows as removed and added.
"""

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from core.errors import DamagedError
from core.events import Meter
from images.browse.entry import Content, Entry, Kind, UnreadableError
from images.browse.tree import Found, Tree, Walk, join
from images.model.extents import Extent


class Change(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One path that differs.

    Attributes:
        path: in the volume, as Python keeps names.
        kind: of the new entry; of the old one when it was removed.
        old, new: its entries; None where it is not there.
        content: whether the bytes differ.
        metadata: which facts differ: mode, owner, time, target, device, attributes.
    """

    path: str
    change: Change
    kind: Kind
    old: Entry | None = None
    new: Entry | None = None
    content: bool = False
    metadata: tuple[str, ...] = ()


class ChangedChunks:
    """The chunks in which two volumes differ.

    Args:
        numbers: ascending.
        chunk_size: bytes.
    """

    def __init__(self, numbers: list[int], chunk_size: int) -> None:
        self.numbers = numbers
        self._size = chunk_size

    def touch(self, extent: Extent) -> bool:
        """Whether a byte range of the volume lies in one of them."""
        index = bisect_left(self.numbers, extent.start // self._size)
        return index < len(self.numbers) and self.numbers[index] * self._size < extent.end

    def parts(self, extent: Extent) -> Iterator[Extent]:
        """What of a byte range lies in them."""
        index = bisect_left(self.numbers, extent.start // self._size)
        while index < len(self.numbers) and (start := self.numbers[index] * self._size) < extent.end:
            yield Extent(max(start, extent.start), min(start + self._size, extent.end))
            index += 1


class TreeComparison:
    """One comparison.

    Args:
        changed: the chunks in which the two volumes differ.
        meter: counts bytes of content that were read.

    Attributes:
        problems: a sentence for everything that could not be compared.
    """

    def __init__(self, old: Tree, new: Tree, changed: ChangedChunks, meter: Meter) -> None:
        self.problems: list[str] = []
        self._old, self._new = old, new
        self._old_walk, self._new_walk = Walk(old), Walk(new)
        self._changed = changed
        self._meter = meter

    def differences(self, old: Found, new: Found) -> Iterator[Difference]:
        """What differs at and below two entries, folder by folder, each sorted by name."""
        yield from self._entry(old, new)
        waiting = [(old, new)]
        while waiting:
            left, right = waiting.pop()
            if not left.entry.kind is right.entry.kind is Kind.FOLDER:
                continue
            below = []
            before, after = self._names(self._old_walk, left), self._names(self._new_walk, right)
            if before is None or after is None:
                # What one side cannot tell is not missing there.
                continue
            for name in sorted({*before, *after}):
                pair = (
                    self._node(self._old, join(left.path, name), before.get(name)),
                    self._node(self._new, join(right.path, name), after.get(name)),
                )
                if pair[0] is not None and pair[1] is not None:
                    yield from self._entry(pair[0], pair[1])
                    below.append((pair[0], pair[1]))
                elif name not in after and pair[0] is not None:
                    yield from self._alone(self._old, pair[0], Change.REMOVED)
                elif name not in before and pair[1] is not None:
                    yield from self._alone(self._new, pair[1], Change.ADDED)
            waiting += reversed(below)

    def alone(self, found: Found, change: Change) -> Iterator[Difference]:
        """An entry that only one side has, and all below it."""
        yield from self._alone(self._old if change is Change.REMOVED else self._new, found, change)

    def _entry(self, old: Found, new: Found) -> Iterator[Difference]:
        """Two entries of one name."""
        if old.entry.kind is not new.entry.kind:
            yield from self._alone(self._old, old, Change.REMOVED)
            yield from self._alone(self._new, new, Change.ADDED)
            return
        metadata = self._metadata(old, new)
        content = old.entry.kind is Kind.FILE and self._content_differs(old, new)
        if content or metadata:
            yield Difference(
                path=new.path,
                change=Change.CHANGED,
                kind=new.entry.kind,
                old=old.entry,
                new=new.entry,
                content=content,
                metadata=metadata,
            )
        yield from self._streams(old, new)

    def _streams(self, old: Found, new: Found) -> Iterator[Difference]:
        """Alternate streams of two entries of one name."""
        before = {stream.stream: stream for stream in self._streams_of(self._old, old)}
        after = {stream.stream: stream for stream in self._streams_of(self._new, new)}
        for name in sorted({*before, *after}):
            if name not in after:
                yield from self._alone(self._old, before[name], Change.REMOVED)
            elif name not in before:
                yield from self._alone(self._new, after[name], Change.ADDED)
            elif self._content_differs(before[name], after[name]):
                yield Difference(
                    path=after[name].path,
                    change=Change.CHANGED,
                    kind=Kind.FILE,
                    old=before[name].entry,
                    new=after[name].entry,
                    content=True,
                )

    def _streams_of(self, tree: Tree, found: Found) -> list[Found]:
        try:
            return list(tree.streams(found))
        except (DamagedError, UnreadableError) as error:
            self.problems.append(error.message)
            return []

    def _alone(self, tree: Tree, found: Found, change: Change) -> Iterator[Difference]:
        """An entry that only one side has, and all below it."""
        waiting = [found]
        while waiting:
            here = waiting.pop()
            yield Difference(
                path=here.path,
                change=change,
                kind=here.entry.kind,
                old=here.entry if change is Change.REMOVED else None,
                new=here.entry if change is Change.ADDED else None,
                content=here.entry.kind is Kind.FILE,
            )
            below = [] if here.stream else self._streams_of(tree, here)
            if here.entry.kind is Kind.FOLDER:
                walk = self._old_walk if change is Change.REMOVED else self._new_walk
                for name, node in (self._names(walk, here) or {}).items():
                    child = self._node(tree, join(here.path, name), node)
                    if child is not None:
                        below.append(child)
            waiting += reversed(below)

    def _metadata(self, old: Found, new: Found) -> tuple[str, ...]:
        left, right = old.entry, new.entry
        facts = {
            "mode": left.mode != right.mode,
            "owner": (left.uid, left.gid) != (right.uid, right.gid),
            "time": left.mtime != right.mtime and left.kind is not Kind.FOLDER,
            "target": left.target != right.target,
            "device": (left.major, left.minor) != (right.major, right.minor),
        }
        try:
            facts["attributes"] = self._old.attributes(old) != self._new.attributes(new)
        except DamagedError as error:
            self.problems.append(error.message)
        return tuple(name for name, differs in facts.items() if differs)

    def _content_differs(self, old: Found, new: Found) -> bool:
        if old.entry.size != new.entry.size:
            return True
        try:
            left, right = self._old.content(old), self._new.content(new)
            if left.size != right.size:
                return True
            return any(
                self._read(self._old, old, left, part) != self._read(self._new, new, right, part)
                for part in self._doubtful(left, right)
            )
        except (DamagedError, UnreadableError) as error:
            self.problems.append(f"{error.message} Its content was not compared.")
            return False

    def _doubtful(self, old: Content, new: Content) -> Iterator[Extent]:
        """The ranges of a file in which its content may differ, in pieces of at most one MiB."""
        if old.segments is not None and new.segments is not None:
            ranges = self._doubtful_segments(old, new)
        elif old.recipe and old.recipe == new.recipe and old.extents == new.extents:
            # Encoded: one chunk that differs may change all of it.
            same = not any(self._changed.touch(extent) for extent in old.extents)
            ranges = iter(() if same else (Extent(0, old.size),))
        else:
            ranges = iter((Extent(0, old.size),))
        for extent in ranges:
            start = extent.start
            while start < extent.end:
                end = min(start + (1 << 20), extent.end)
                yield Extent(start, end)
                start = end

    def _doubtful_segments(self, old: Content, new: Content) -> Iterator[Extent]:
        """Along both lists of segments: where both have the same place, only chunks that differ are doubtful."""
        left, right = _pieces_of(old), _pieces_of(new)
        here, there = next(left, None), next(right, None)
        position = 0
        while here is not None and there is not None:
            end = min(here[0].end, there[0].end)
            places = tuple(None if place is None else place + position - part.start for part, place in (here, there))
            if places[0] != places[1]:
                yield Extent(position, end)
            elif places[0] is not None:
                for part in self._changed.parts(Extent(places[0], places[0] + end - position)):
                    yield Extent(position + part.start - places[0], position + part.end - places[0])
            position = end
            here = next(left, None) if here[0].end == end else here
            there = next(right, None) if there[0].end == end else there

    def _read(self, tree: Tree, found: Found, content: Content, part: Extent) -> bytes:
        pieces = tree.pieces(found, content, part.start, part.end)
        data = b"".join(bytes(piece.size) if piece.data is None else piece.data for piece in pieces)
        self._meter.advance(len(data))
        return data

    def _names(self, walk: Walk, found: Found) -> dict[str, int] | None:
        """Names and nodes; None when the folder cannot be listed, which is said."""
        try:
            return {name: node for name, node, _ in walk.names(found)}
        except (DamagedError, UnreadableError) as error:
            self.problems.append(error.message)
            return None

    def _node(self, tree: Tree, path: str, node: int | None) -> Found | None:
        if node is None:
            return None
        try:
            return tree.node(path, node)
        except DamagedError as error:
            self.problems.append(error.message)
            return None


def _pieces_of(content: Content) -> Iterator[tuple[Extent, int | None]]:
    """The whole of a file as ranges with their places in the volume, None for holes."""
    position = 0
    for segment in content.segments or ():
        if segment.offset > position:
            yield Extent(position, segment.offset), None
        yield Extent(segment.offset, segment.offset + segment.size), segment.place
        position = segment.offset + segment.size
    if position < content.size:
        yield Extent(position, content.size), None
