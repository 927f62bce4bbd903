"""The trees of an XFS allocation group: leaves from left to right.

Kernel: fs/xfs/libxfs/xfs_format.h, struct xfs_btree_block with short pointers: magic, level, number of entries, left
and right sibling; what follows in version 5 (a checksum among it) was checked when it was captured.
"""

import struct
from collections.abc import Iterator

import msgspec

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import Superblock
from images.sources import BlockSource

_POINTER = 4
_LEVELS = 9
#: Of a block, before version 5.
_OLD_HEADER = 16


class GroupTree(msgspec.Struct, frozen=True, kw_only=True):
    """A tree of one allocation group.

    Attributes:
        what: for people, as in "its tree of reference counts". magic: of its blocks.
        key, record: bytes of an entry of a node, without the pointer, and of a leaf.
        root, levels: as the group's header has them.
    """

    what: str
    magic: bytes
    key: int
    record: int
    root: int
    levels: int

    def records(self, source: BlockSource, superblock: Superblock, group: int) -> Iterator[bytes]:
        """Its records, from left to right: down at its left edge, then along.

        Raises:
            DamagedError: it is not what it should be, naming the block.
        """
        where = f"XFS, allocation group {group}"
        if not 0 < self.levels <= _LEVELS:
            raise DamagedError(f"{where}: {self.what} has {self.levels} levels.")
        header = header_size(superblock)
        number = self.root
        for level in range(self.levels - 1, 0, -1):
            block = self._block(source, superblock, group, number, level)
            most = (superblock.block_size - header) // (self.key + _POINTER)
            (number,) = struct.unpack_from(">I", block, header + most * self.key)
        seen = 0
        while number != c_xfs.NO_BLOCK:
            seen += 1
            if seen > superblock.group_length(group):
                raise DamagedError(f"{where}: {self.what} goes round in circles.")
            block = self._block(source, superblock, group, number, 0)
            (count,) = struct.unpack_from(">H", block, 6)
            for place in range(count):
                start = header + place * self.record
                yield block[start : start + self.record]
            (number,) = struct.unpack_from(">I", block, 12)

    def _block(self, source: BlockSource, superblock: Superblock, group: int, number: int, level: int) -> bytes:
        where = f"XFS, allocation group {group}, block {number} of {self.what}"
        if number >= superblock.group_length(group):
            raise DamagedError(f"{where}: the group has {superblock.group_length(group)} blocks.")
        size = superblock.block_size
        block = source.read_at(superblock.group_offset(group) + number * size, size)
        magic, found, count = struct.unpack_from(">4sHH", block)
        room = (size - header_size(superblock)) // (self.key + _POINTER if level else self.record)
        if magic != self.magic or found != level or count > room:
            raise DamagedError(
                f"{where}: {magic!r}, level {found}, {count} entries; expected {self.magic!r}, level {level}."
            )
        return block


def header_size(superblock: Superblock) -> int:
    """Bytes before the entries of a block of such a tree."""
    return c_xfs.BTREE_CRC_HEADER if superblock.checksummed else _OLD_HEADER
