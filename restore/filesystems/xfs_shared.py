"""What files of a stored XFS share: bytes that a copy of its files takes beyond what is allocated.

Read from the trees of reference counts, one for each allocation group (kernel: fs/xfs/libxfs/xfs_format.h, struct
xfs_agf, struct xfs_refcount_rec; Documentation/filesystems/xfs/xfs-online-fsck-design.rst). Files are not looked at.
"""

import struct

from core.errors import DamagedError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import RoCompat
from images.sources import BlockSource
from restore.filesystems.xfs_tree import GroupTree

_ROOT_AT = 88
_MAGIC = b"R3FC"
#: A record of blocks that a write under way has set aside: nobody shares them.
_STAGED = 1 << 31


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
        if header[:4] != c_xfs.AGF_MAGIC:
            raise DamagedError(f"XFS, allocation group {group}: its header begins with {header[:4]!r}.")
        root, levels = struct.unpack_from(">II", header, _ROOT_AT)
        what = "its tree of reference counts"
        tree = GroupTree(what=what, magic=_MAGIC, key=4, record=12, root=root, levels=levels)
        for record in tree.records(source, superblock, group):
            start, length, files = struct.unpack(">III", record)
            blocks += 0 if start & _STAGED else length * max(files - 1, 0)
    return blocks * superblock.block_size
