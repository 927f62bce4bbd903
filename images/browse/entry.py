"""What a filesystem holds, in words that all filesystems share: entries, extended attributes, content.

Facts and the interface only; each reader beside this file fills them from one filesystem.

Names and link targets are text as Python keeps it for files: UTF-8, with bytes that are not kept as surrogates
(``os.fsencode`` gives the bytes back).
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from core.errors import DamagedError, RefusedError
from core.units import MIB
from images.model.extents import Extent
from images.sources import BlockSource

#: Bytes of a file that are handed on at once.
PIECE_SIZE = MIB


class UnreadableError(RefusedError):
    """Content that is sound, but kept in a way liferaft does not read: encrypted, or packed by an unknown method."""


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"
    SOCKET = "socket"


class Child(msgspec.Struct, frozen=True):
    """A name in a folder.

    Attributes:
        name: one path component.
        node: the reader's own number for what the name stands for.
        kind: when the folder says it; None when only the node itself does.
    """

    name: str
    node: int
    kind: Kind | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file, folder or other thing of a filesystem.

    Attributes:
        node: unique inside the volume; two names with one node are hard links.
        size: bytes of content; 0 for what has none.
        mode: permission bits (and set-id, sticky). Filesystems without them: 0o755 and 0o644, 0o444 when read-only.
        mtime, atime, ctime: nanoseconds since 1970, UTC; FAT's local times are taken as UTC.
        links: how many names the node has.
        target: where a symbolic link points.
        major, minor: of a device.
        streams: names of NTFS's alternate data streams.
        owned: whether the filesystem has owners and modes at all.
    """

    node: int
    kind: Kind
    size: int
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int
    atime: int
    ctime: int
    links: int = 1
    target: str = ""
    major: int = 0
    minor: int = 0
    streams: tuple[str, ...] = ()
    owned: bool = True


class Attribute(msgspec.Struct, frozen=True):
    """An extended attribute, with the name and the bytes that Linux's ``getxattr`` gives."""

    name: str
    value: bytes


class Segment(msgspec.Struct, frozen=True):
    """``size`` bytes of a file from ``offset``, which lie in the volume from ``place``."""

    offset: int
    size: int
    place: int


class Piece(msgspec.Struct, frozen=True):
    """Bytes of a file from ``offset``; ``data`` is None for a hole, which reads as ``size`` zeros."""

    offset: int
    size: int
    data: bytes | None


class Content:
    """The bytes of one file or stream.

    Attributes:
        size: bytes.
        segments: where they lie when they lie in the volume as they are; what no segment covers is zeros. None when
            they are compressed, or kept in the node itself.
        extents: every byte range of the volume the content depends on, the node not counted.
        inline: kept in the node itself.
        recipe: how what the extents hold becomes the content: equal recipes over equal bytes give equal content.
    """

    def __init__(
        self,
        size: int,
        *,
        segments: tuple[Segment, ...] | None,
        extents: tuple[Extent, ...],
        read: Callable[[int, int], Iterator[Piece]],
        inline: bool = False,
        recipe: str = "",
    ) -> None:
        self.size = size
        self.segments = segments
        self.extents = extents
        self.inline = inline
        self.recipe = recipe
        self._read = read

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        """The content of a range, in order, without gaps, at most :data:`PIECE_SIZE` bytes of data at once.

        Raises:
            DamagedError: a part cannot be read.
        """
        position, end = start, self.size if end is None else min(end, self.size)
        for piece in self._read(start, end):
            if piece.offset != position or (piece.data is not None and len(piece.data) != piece.size):
                raise DamagedError(f"The content goes on at {piece.offset}, expected {position}.")
            position += piece.size
            yield piece
        if position < end:
            yield Piece(position, end - position, None)

    def read(self, limit: int) -> bytes:
        """The whole content of a small file.

        Raises:
            DamagedError: it has more than ``limit`` bytes.
        """
        if self.size > limit:
            raise DamagedError(f"It has {self.size} bytes, expected at most {limit}.")
        return b"".join(bytes(piece.size) if piece.data is None else piece.data for piece in self.pieces())


def stored_content(source: BlockSource, size: int, segments: tuple[Segment, ...]) -> Content:
    """Content that lies in the volume as it is.

    Raises:
        DamagedError: segments overlap, are out of order, or lie outside the volume.
    """
    position = 0
    for segment in segments:
        if segment.offset < position or segment.place < 0 or segment.place + segment.size > source.size:
            raise DamagedError(
                f"A segment of {segment.size} bytes at {segment.offset} of the file and {segment.place} of the volume "
                f"does not fit a file read up to {position} in a volume of {source.size} bytes."
            )
        position = segment.offset + segment.size

    def read(start: int, end: int) -> Iterator[Piece]:
        position = start
        for segment in segments:
            first, last = max(segment.offset, start), min(segment.offset + segment.size, end)
            if first >= last:
                continue
            if position < first:
                yield Piece(position, first - position, None)
            while first < last:
                # Up to the next boundary in the volume, so that a chunk is asked for once.
                place = segment.place + first - segment.offset
                count = min(last - first, PIECE_SIZE - place % PIECE_SIZE)
                yield Piece(first, count, source.read_at(place, count))
                first += count
            position = last

    extents = tuple(Extent(segment.place, segment.place + segment.size) for segment in segments)
    return Content(size, segments=segments, extents=extents, read=read)


def inline_content(data: bytes) -> Content:
    """Content that is kept in the node itself."""

    def read(start: int, end: int) -> Iterator[Piece]:
        if start < end:
            yield Piece(start, end - start, data[start:end])

    return Content(len(data), segments=None, extents=(), read=read, inline=True)


def clip_segments(segments: tuple[Segment, ...], size: int) -> tuple[Segment, ...]:
    """What of ``segments`` lies before ``size``: allocation units reach behind the end of a file."""
    return tuple(
        Segment(segment.offset, min(segment.size, size - segment.offset), segment.place)
        for segment in segments
        if segment.offset < size and segment.size
    )


class Filesystem(Protocol):
    """One volume's filesystem, read-only. Not safe from several threads at once.

    Every method raises DamagedError for what is not as the format promises, and may let errors of the library
    behind it through: :class:`images.browse.tree.Tree` turns those into DamagedError with their address.

    Attributes:
        root: the node of the top folder.
        name: ``ext4``, ``ntfs`` …
        notes: what the person should know (``its journal was not played``).
        ignores_case: whether names are looked up without regard to case.
    """

    root: int
    name: str
    notes: tuple[str, ...]
    ignores_case: bool

    @property
    def default(self) -> str:
        """The path of the folder that is mounted when none is named: ``/``, or a subvolume of btrfs."""
        ...

    def children(self, node: int) -> Iterator[Child]:
        """The names in a folder, ``.`` and ``..`` left out."""
        ...

    def entry(self, node: int) -> Entry:
        """What a node is."""
        ...

    def attributes(self, node: int) -> tuple[Attribute, ...]:
        """Its extended attributes, sorted by name."""
        ...

    def content(self, node: int, stream: str = "") -> Content:
        """Its bytes, or those of one of its alternate streams."""
        ...
