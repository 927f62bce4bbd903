"""What files of a stored XFS share: bytes that a copy of its files takes beyond what is allocated.

Read from the trees of reference counts, one for each allocation group (kernel: fs/xfs/libxfs/xfs_format.h, struct
xfs_agf, struct xfs_refcount_rec; Documentation/filesystems/xfs/xfs-online-fsck-design.rst). Files are not looked at.
"""

import struct
from collections.abc import Iterator

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import RoCompat, Superblock
from images.sources import BlockSource

_ROOT_AT, _LEVELS_AT = 88, 92
_MAGIC = b"R3FC"
_RECORD, _KEY, _POINTER = 12, 4, 4
#: A record of blocks that a write under way has set aside: nobody shares them.
_STAGED = 1 << 31
_LEVELS = 9


def shared_bytes(source: BlockSource) -> int:
    """Bytes that files have in common, each counted for every file but the first.

    Args:
        source: a sound XFS.

    Raises:
        DamagedError: a tree is not what it should be, naming the block.
    """
    superblock = c_xfs.parse_superblock(source.read_at(0, c_xfs.SUPERBLOCK_SIZE))
    if not superblock.checksummed or not superblock.ro_compat & RoCompat.REFLINK:
        return 0
    blocks = 0
    for group in range(superblock.group_count):
        header = source.read_at(superblock.group_offset(group) + superblock.sector_size, superblock.sector_size)
        root, levels = struct.unpack_from(">II", header, _ROOT_AT)
        if header[:4] != c_xfs.AGF_MAGIC or not 0 < levels <= _LEVELS:
            raise DamagedError(f"XFS, allocation group {group}: its header has a tree of {levels} levels.")
        for leaf in _leaves(source, superblock, group, root, levels):
            (count,) = struct.unpack_from(">H", leaf, 6)
            for place in range(count):
                start, length, files = struct.unpack_from(">III", leaf, c_xfs.BTREE_CRC_HEADER + place * _RECORD)
                blocks += 0 if start & _STAGED else length * max(files - 1, 0)
    return blocks * superblock.block_size


def _leaves(source: BlockSource, superblock: Superblock, group: int, root: int, levels: int) -> Iterator[bytes]:
    """The leaves of one tree, from left to right: down at its left edge, then along."""
    number = root
    for level in range(levels - 1, 0, -1):
        block = _block(source, superblock, group, number, level)
        most = (superblock.block_size - c_xfs.BTREE_CRC_HEADER) // (_KEY + _POINTER)
        (number,) = struct.unpack_from(">I", block, c_xfs.BTREE_CRC_HEADER + most * _KEY)
    seen = 0
    while number != c_xfs.NO_BLOCK:
        seen += 1
        if seen > superblock.group_length(group):
            raise DamagedError(f"XFS, allocation group {group}: its tree of reference counts goes round in circles.")
        block = _block(source, superblock, group, number, 0)
        yield block
        (number,) = struct.unpack_from(">I", block, 12)


def _block(source: BlockSource, superblock: Superblock, group: int, number: int, level: int) -> bytes:
    where = f"XFS, allocation group {group}, block {number} of its tree of reference counts"
    if number >= superblock.group_length(group):
        raise DamagedError(f"{where}: the group has {superblock.group_length(group)} blocks.")
    size = superblock.block_size
    block = source.read_at(superblock.group_offset(group) + number * size, size)
    magic, found, count = struct.unpack_from(">4sHH", block)
    room = (size - c_xfs.BTREE_CRC_HEADER) // (_KEY + _POINTER if level else _RECORD)
    if magic != _MAGIC or found != level or count > room:
        raise DamagedError(f"{where}: {magic!r}, level {found}, {count} entries; expected {_MAGIC!r}, level {level}.")
    return block
