"""What the files of a stored XFS take more in larger blocks, as sectors of 4096 bytes ask for: bytes, from above.

Every inode that is used may have content and attributes, each of which ends in a block of its own and so takes up to
the difference more; folders have blocks of their own size, which stays. How many inodes are used stands in the header
of each allocation group (kernel: fs/xfs/libxfs/xfs_format.h, struct xfs_agi). Files are not looked at.
"""

import struct

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.sources import BlockSource

_MAGIC = b"XAGI"
_COUNT_AT, _FREE_AT = 16, 28
#: Of the sectors at the beginning of a group: superblock, free space, inodes.
_SECTOR = 2
#: Content and attributes.
_FORKS = 2


def coarser_bytes(source: BlockSource, block_size: int) -> int:
    """Bytes that a copy of all files takes at most beyond what they take now.

    Args:
        source: a sound XFS. block_size: of the copy, bytes.

    Raises:
        DamagedError: the header of an allocation group is not what it should be.
    """
    superblock = c_xfs.parse_superblock(source.read_at(0, c_xfs.SUPERBLOCK_SIZE))
    more = block_size - superblock.block_size
    if more <= 0:
        return 0
    used = 0
    for group in range(superblock.group_count):
        at = superblock.group_offset(group) + _SECTOR * superblock.sector_size
        header = source.read_at(at, superblock.sector_size)
        count, free = (struct.unpack_from(">I", header, place)[0] for place in (_COUNT_AT, _FREE_AT))
        if header[:4] != _MAGIC or free > count:
            raise DamagedError(
                f"XFS, allocation group {group}, byte {at}: {header[:4]!r}, {free} of {count} inodes free; expected "
                f"{_MAGIC!r}, and no more free than there are."
            )
        used += count - free
    return used * _FORKS * more
