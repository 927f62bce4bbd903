"""Reading packs and parity files that may be damaged: their sound blocks, a sound head (docs/image-format.md §11).

Nothing is written or repaired here. What cannot be read, lies behind the end of the file or does not
match its checksum is erased, which is a fact and not an error. A server that does not answer, or
not with the bytes, is an error: what it holds is not known.
"""

from collections.abc import Iterator

from core.errors import DamagedError, DeviceError
from core.units import MIB
from images.model.extents import Extent
from images.store.backend import MissingFileError, Reader
from images.store.parity_head import (
    FIXED_SIZE,
    HEAD_ALIGNMENT,
    PARITY_BLOCKS_LIMIT,
    PARITY_FILE_LIMIT,
    PARITY_MAGIC,
    Head,
    decode_geometry,
    decode_head,
)

#: Bytes of one read of many blocks.
_READ_SIZE = 4 * MIB


class BlockFile:
    """A file of the repository, read block by block.

    Attributes:
        name: in the repository. size: bytes; 0 when it is not there.
        exists: whether it is there.
        unreadable: a sentence for the first range that the operating system would not read; empty when there was none.
    """

    def __init__(self, backend: Reader, name: str) -> None:
        self._backend = backend
        self.name = name
        self.exists = True
        self.unreadable = ""
        try:
            self.size = backend.size(name)
        except MissingFileError:
            self.exists = False
            self.size = 0

    @property
    def place(self) -> str:
        """The file for errors."""
        return f"{self._backend.location}/{self.name}"

    def read(self, extent: Extent) -> bytes | None:
        """The bytes of an extent; None when they are not all there or cannot be read."""
        if extent.end > self.size:
            return None
        try:
            return self._backend.read_range(self.name, extent.start, extent.size)
        except (DamagedError, DeviceError) as error:
            # A lost sector is the disk's; what a server says instead of the bytes tells nothing about them.
            if self._backend.distant and not isinstance(error, DamagedError | MissingFileError):
                raise
            self.unreadable = self.unreadable or error.message
            return None

    def blocks(self, extent: Extent, block_size: int) -> Iterator[bytes | memoryview | None]:
        """The blocks of an extent one after the other, the last as long as it is; None for each that is erased."""
        for start in range(extent.start, extent.end, _READ_SIZE):
            piece = Extent(start, min(start + _READ_SIZE, extent.end))
            data = self.read(piece)
            for at in range(start, piece.end, block_size):
                end = min(at + block_size, piece.end)
                # One bad sector takes one block with it, not the whole piece.
                yield self.read(Extent(at, end)) if data is None else memoryview(data)[at - start : end - start]


def find_head(file: BlockFile, repository: bytes, pack: bytes) -> Head:
    """The first sound head of a parity file.

    Raises:
        DamagedError: there is none; the message says what is wrong with the first.
    """
    try:
        return _head_at(file, 0, repository, pack)
    except DamagedError as error:
        first = error
    for offset in _candidates(file):
        try:
            return _head_at(file, offset, repository, pack)
        except DamagedError:
            continue
    raise DamagedError(f"{first.message.rstrip('.')}; no other head of the file is sound.")


def _head_at(file: BlockFile, offset: int, repository: bytes, pack: bytes) -> Head:
    where = f"{file.place}, offset {offset}"
    fixed = _part_of_head(file, Extent(offset, offset + FIXED_SIZE), where)
    geometry = decode_geometry(fixed, repository, pack, where)
    if offset % geometry.head_offset(1) or offset > geometry.head_offset(geometry.parity_blocks):
        raise DamagedError(f"{where}: the parity head is not at a place that its own numbers give it.")
    data = _part_of_head(file, Extent(offset, offset + geometry.head_size), where)
    return decode_head(data, repository, pack, where)


def _part_of_head(file: BlockFile, extent: Extent, where: str) -> bytes:
    data = file.read(extent)
    if data is None and extent.end > file.size:
        raise DamagedError(f"{where}: the parity head is cut off: the file ends at {file.size}.")
    if data is None:
        raise DamagedError(f"{where}: the parity head cannot be read: {file.unreadable}")
    return data


def _candidates(file: BlockFile) -> Iterator[int]:
    """Where a head may begin, by its magic; no more places than a file can have heads."""
    found = 0
    size = min(file.size, PARITY_FILE_LIMIT)
    whole = Extent(HEAD_ALIGNMENT, max(HEAD_ALIGNMENT, size))
    for number, block in enumerate(file.blocks(whole, HEAD_ALIGNMENT)):
        if block is not None and block[: len(PARITY_MAGIC)] == PARITY_MAGIC:
            yield whole.start + number * HEAD_ALIGNMENT
            found += 1
            if found > PARITY_BLOCKS_LIMIT:
                return


def other_heads(file: BlockFile, head: Head) -> Iterator[Extent]:
    """The places of heads that are not equal to ``head``."""
    expected = head.encode()
    for copy in range(head.geometry.parity_blocks + 1):
        start = head.geometry.head_offset(copy)
        place = Extent(start, start + len(expected))
        if file.read(place) != expected:
            yield place
