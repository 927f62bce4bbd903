"""What the files of a stored XFS take more in larger blocks, as sectors of 4096 bytes ask for: bytes, from above.

A file takes whole blocks wherever it has content, so that in larger ones each piece between two holes begins and ends
in a block that it may fill by a byte alone. Where the pieces lie stands in the inodes (kernel:
fs/xfs/libxfs/xfs_format.h, struct xfs_dinode, xfs_bmbt_rec); where that is a tree of its own, each of its extents is
taken to be a piece. Attributes may take a block more; folders have blocks of their own size, which stays. No content is
read.
"""

import struct
from collections.abc import Iterator

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import Superblock
from images.sources import BlockSource
from restore.filesystems.xfs_tree import GroupTree

_MAGIC = b"XAGI"
_ROOT_AT = 20
#: Of the sectors at the beginning of a group: superblock, free space, inodes.
_SECTOR = 2
_INODE_SIZE_AT = 104
#: Inodes are made so many at a time.
_CHUNK = 64
_INODE = b"IN"
#: Inodes of it have more fields.
_VERSION = 3
_EXTENTS, _TREE = 2, 3
#: Counts of extents are wider (XFS_DIFLAG2_NREXT64).
_WIDE = 0x10
_EXTENT = 16


def coarser_bytes(source: BlockSource, block_size: int) -> int:
    """Bytes that a copy of all files takes at most beyond what they take now.

    Args:
        source: a sound XFS. block_size: of the copy, bytes.

    Raises:
        DamagedError: a header, a tree or an inode is not what it should be.
    """
    head = source.read_at(0, c_xfs.SUPERBLOCK_SIZE)
    superblock = c_xfs.parse_superblock(head)
    more = block_size - superblock.block_size
    if more <= 0:
        return 0
    (inode_size,) = struct.unpack_from(">H", head, _INODE_SIZE_AT)
    ratio = block_size // superblock.block_size
    return sum(
        _more_blocks(inode, ratio) * superblock.block_size + more
        for group in range(superblock.group_count)
        for inode in _inodes(source, superblock, group, inode_size)
    )


def _inodes(source: BlockSource, superblock: Superblock, group: int, size: int) -> Iterator[bytes]:
    """The inodes of a group that are used."""
    at = superblock.group_offset(group)
    header = source.read_at(at + _SECTOR * superblock.sector_size, superblock.sector_size)
    if header[:4] != _MAGIC:
        raise DamagedError(
            f"XFS, allocation group {group}, byte {at + _SECTOR * superblock.sector_size}: {header[:4]!r}, expected "
            f"{_MAGIC!r}."
        )
    root, levels = struct.unpack_from(">II", header, _ROOT_AT)
    magic = b"IAB3" if superblock.checksummed else b"IABT"
    tree = GroupTree(what="its tree of inodes", magic=magic, key=4, record=16, root=root, levels=levels)
    for record in tree.records(source, superblock, group):
        # Places of a chunk that were never made count as free ones (kernel: XFS_INOBT_HOLEMASK_BITS).
        first, free = struct.unpack_from(">I4xQ", record)
        if not ~free & ((1 << _CHUNK) - 1):
            continue
        used = [place for place in range(_CHUNK) if not free >> place & 1]
        start, end = used[0] * size, (used[-1] + 1) * size
        # An inode's number in its group is its place there, in inodes.
        chunk = source.read_at(at + first * size + start, end - start)
        for place in used:
            inode = chunk[place * size - start : (place + 1) * size - start]
            if inode[:2] != _INODE:
                raise DamagedError(f"XFS, allocation group {group}, inode {first + place}: begins with {inode[:2]!r}.")
            yield inode


def _more_blocks(inode: bytes, ratio: int) -> int:
    """Old blocks that its content and attributes take more, from above, in blocks of ``ratio`` old ones."""
    wide = inode[4] >= _VERSION and inode[127] & _WIDE
    counts: tuple[int, int] = struct.unpack_from(">Q44xI" if wide else ">52xIH", inode, 24)
    count, attributes = counts
    ends = 2 * attributes * (ratio - 1)
    if inode[5] == _TREE:
        return ends + 2 * count * (ratio - 1)
    if inode[5] != _EXTENTS:
        return ends
    fork = 176 if inode[4] >= _VERSION else 100
    if fork + count * _EXTENT > len(inode):
        raise DamagedError(f"XFS: an inode of {len(inode)} bytes says that it holds {count} extents.")
    taken = needed = reached = 0
    for place in range(count):
        high, low = struct.unpack_from(">QQ", inode, fork + place * _EXTENT)
        start, length = (high & (1 << 63) - 1) >> 9, low & (1 << 21) - 1
        first, end = start // ratio, -(-(start + length) // ratio)
        taken += length
        needed += max(end - max(first, reached), 0)
        reached = max(reached, end)
    return ends + needed * ratio - taken
