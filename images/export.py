"""A disk of a recovery point as an image file: raw and sparse, or qcow2.

The head and every volume lie at their old offsets, the parts of the table that an image does not keep are made again,
and everything else is a hole. Worker threads read, decompress and prove chunks; the calling thread writes in the order
of the disk.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import msgspec

from core.events import Meter
from core.units import KIB
from images.browse.point import DiskSource
from images.model.extents import Extent, merge, total
from images.qcow2 import CLUSTER, Qcow2Writer
from images.tables.piece import TablePiece, extents_of
from images.tables.remake import missing_pieces

#: Zeros of this size and alignment become holes in a raw file.
_HOLE = 64 * KIB
_ZEROS = bytes(_HOLE)
_READERS = min(os.cpu_count() or 1, 8)
_AHEAD = 2 * _READERS


class ExportSource:
    """A disk with its table made whole.

    Attributes:
        extents: ranges that may hold something other than zeros, sorted; bytes on the disk.
        notes: what could not be made as it was.
    """

    def __init__(self, disk: DiskSource) -> None:
        """Read the head and find what holds data.

        Raises:
            DamagedError: the head or a page of a volume's map is missing or damaged.
        """
        notes: list[str] = []
        self._disk = disk
        self._pieces: tuple[TablePiece, ...] = missing_pieces(disk, disk.disk, notes)
        self.notes = tuple(notes)
        self.extents = tuple(merge(sorted((*disk.allocated(), *extents_of(self._pieces)))))

    @property
    def size(self) -> int:
        """Bytes."""
        return self._disk.size

    @property
    def data_size(self) -> int:
        """Bytes to read."""
        return total(_widened(self.extents, CLUSTER, self.size))

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the disk; the pieces of the table lie over what the image has."""
        content = self._disk.read_at(offset, length)
        for piece in self._pieces:
            first, last = max(offset, piece.offset), min(offset + length, piece.offset + len(piece.data))
            if first < last:
                own = piece.data[first - piece.offset : last - piece.offset]
                content = content[: first - offset] + own + content[last - offset :]
        return content


def write_raw(source: ExportSource, stream: BinaryIO, meter: Meter) -> None:
    """A sparse raw image into an empty file.

    Raises:
        DamagedError: a chunk is missing or damaged. OSError: the file cannot be written.
    """
    descriptor = stream.fileno()
    os.ftruncate(descriptor, source.size)
    for extent, data in _in_order(source, _aligned(source.extents, _HOLE, source.size)):
        for start in range(0, len(data), _HOLE):
            piece = data[start : start + _HOLE]
            if piece != _ZEROS[: len(piece)]:
                _write_all(descriptor, piece, extent.start + start)
        meter.advance(extent.size)


def write_qcow2(source: ExportSource, stream: BinaryIO, meter: Meter) -> None:
    """A qcow2 image into an empty file.

    Raises:
        DamagedError: a chunk is missing or damaged. OSError: the file cannot be written.
    """
    writer = Qcow2Writer(stream, source.size)
    for extent, data in _in_order(source, _aligned(source.extents, CLUSTER, source.size)):
        for start in range(0, len(data), CLUSTER):
            writer.write((extent.start + start) // CLUSTER, data[start : start + CLUSTER])
        meter.advance(extent.size)
    writer.finish()


def _aligned(extents: tuple[Extent, ...], unit: int, size: int) -> Iterator[Extent]:
    """The extents widened to whole units, in pieces of at most one MiB that begin on its multiples."""
    for extent in _widened(extents, unit, size):
        start = extent.start
        while start < extent.end:
            end = min((start // (1 << 20) + 1) << 20, extent.end)
            yield Extent(start, end)
            start = end


def _widened(extents: tuple[Extent, ...], unit: int, size: int) -> Iterator[Extent]:
    """The extents widened to whole units, inside the disk."""
    return merge(Extent(extent.start // unit * unit, min(-(-extent.end // unit) * unit, size)) for extent in extents)


def _in_order(source: ExportSource, extents: Iterator[Extent]) -> Iterator[tuple[Extent, bytes]]:
    """The bytes of extents, read ahead by a few threads."""
    with ThreadPoolExecutor(_READERS, "export") as readers:
        waiting: deque[tuple[Extent, Future[bytes]]] = deque()
        try:
            for extent in extents:
                waiting.append((extent, readers.submit(source.read_at, extent.start, extent.size)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What an export did. Bytes.

    Attributes:
        size: of the disk; read: from the repository, after decompression; stored: what the file takes on its disk.
    """

    id: str
    disk: str
    path: str
    format: str
    size: int
    read: int
    stored: int
    warnings: tuple[str, ...] = ()
