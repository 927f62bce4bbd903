"""The reader of XFS, versions 4 and 5: what it is, and whether its trees of free space can be believed.

They are believed only of a filesystem whose log says that it was unmounted, that has no feature liferaft does not
know, and whose superblocks, headers, lists and trees agree with their checksums and with each other (law 6). A realtime
section lies on a device of its own and has no part in the map; a log on another device cannot be judged from here.
"""

from uuid import UUID

import numpy as np

from core.errors import DamagedError, DeviceError
from images.filesystems import c_xfs
from images.filesystems.c_xfs import Features2, Incompat, Superblock
from images.filesystems.used import UsedMap, whole
from images.filesystems.xfs_free import check_groups, checksums_match, used_extents
from images.filesystems.xfs_log import doubt_about_log
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

#: Kernel: XFS_MIN_AG_BLOCKS, XFS_MAX_AG_BYTES, XFS_MIN_LOG_BLOCKS, XFS_MAX_LOG_BYTES (fs/xfs/libxfs/xfs_fs.h).
_MIN_GROUP_BLOCKS = 64
_MAX_GROUP_BYTES = 1 << 40
_MIN_LOG_BLOCKS = 512
_MAX_LOG_BYTES = 1 << 31


def read_xfs(source: BlockSource) -> UsedMap | None:
    """Which extents hold data; None when there is no XFS superblock.

    The trees of free space are read once here, to be believed, and once more when extents are asked for.
    """
    if source.size < 512:
        return None
    content = source.read_at(0, 512)
    if content[:4] != c_xfs.MAGIC:
        return None
    superblock = c_xfs.parse_superblock(content)
    filesystem = Filesystem(
        kind=FilesystemKind.XFS,
        detail="xfs",
        uuid=str(UUID(bytes=superblock.uuid)) if any(superblock.uuid) else "",
        label=superblock.name.split(b"\0", 1)[0].decode(errors="replace"),
    )
    try:
        damage = _damage(source, superblock)
        if damage:
            return whole(filesystem, source.size, f"its superblock is damaged: {damage}")
        filesystem = Filesystem(
            kind=filesystem.kind,
            detail=filesystem.detail,
            uuid=filesystem.uuid,
            label=filesystem.label,
            block_size=superblock.block_size,
            size=superblock.blocks_count * superblock.block_size,
        )
        doubt = _doubt(source, superblock)
        if doubt:
            return whole(filesystem, source.size, doubt)
        check_groups(source, superblock)
    except (DamagedError, DeviceError) as error:
        return whole(filesystem, source.size, error.message.rstrip("."))
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: used_extents(source, superblock))


def _damage(source: BlockSource, superblock: Superblock) -> str:
    """What makes the superblock unbelievable in itself; empty when nothing does.

    Behind this, all arithmetic of :class:`Superblock` is safe and bounded.
    """
    if superblock.number not in (4, 5):
        return f"its version is {superblock.number}"
    if not 9 <= superblock.block_log <= 16 or superblock.block_size != 1 << superblock.block_log:
        return f"its block size is {superblock.block_size}"
    if not 9 <= superblock.sector_log <= superblock.block_log or superblock.sector_size != 1 << superblock.sector_log:
        return f"its sector size is {superblock.sector_size}"
    if superblock.checksummed:
        sector = np.frombuffer(source.read_at(0, superblock.sector_size), dtype=np.uint8).reshape(1, -1)
        if not checksums_match(sector, c_xfs.SUPERBLOCK_CRC_OFFSET).all():
            return "it does not match its checksum"
    blocks, count = superblock.group_blocks, superblock.group_count
    if not _MIN_GROUP_BLOCKS <= blocks <= _MAX_GROUP_BYTES // superblock.block_size:
        return f"it has {blocks} blocks in an allocation group"
    if superblock.group_log > 31 or blocks > 1 << superblock.group_log:
        return f"it numbers {blocks} blocks of an allocation group with {superblock.group_log} bits"
    if not (count - 1) * blocks + _MIN_GROUP_BLOCKS <= superblock.blocks_count <= count * blocks:
        return f"it has {superblock.blocks_count} blocks in {count} allocation groups of {blocks}"
    if superblock.log_start:
        if superblock.log_blocks < _MIN_LOG_BLOCKS or superblock.log_size > _MAX_LOG_BYTES:
            return f"its log has {superblock.log_blocks} blocks"
        end = superblock.log_group_block + superblock.log_blocks
        if superblock.log_group >= count or end > superblock.group_length(superblock.log_group):
            return f"its log lies outside allocation group {superblock.log_group}"
    return ""


def _doubt(source: BlockSource, superblock: Superblock) -> str:
    """Why the trees of a sound superblock are not believed; empty when they are."""
    size = superblock.blocks_count * superblock.block_size
    if size > source.size:
        return f"it claims {size} bytes, but the volume has {source.size}"
    if superblock.in_progress:
        return "making, growing or repairing it was never finished"
    doubt = _doubt_about_features(superblock)
    if doubt:
        return doubt
    if not superblock.log_start:
        return "its log is on another device"
    # xfs_admin -U leaves the old UUID in the log of version 5, as in all metadata
    uuids = frozenset({superblock.uuid, superblock.stamp})
    return doubt_about_log(source, superblock.log_offset, superblock.log_size, uuids)


def _doubt_about_features(superblock: Superblock) -> str:
    if superblock.version & c_xfs.VERSION_SHARED:
        return "it has the retired feature shared"
    if superblock.version & c_xfs.VERSION_MORE:
        known = c_xfs.KNOWN_FEATURES2 | (Features2.CRC.value if superblock.checksummed else 0)
        if superblock.features2 & ~known:
            return f"it has features liferaft does not know (features2 {superblock.features2 & ~known:#x})"
    if not superblock.checksummed:
        return ""
    unknown = superblock.incompat & ~c_xfs.KNOWN_INCOMPAT
    if unknown:
        return f"it has features liferaft does not know (incompat {unknown:#x})"
    unknown = superblock.ro_compat & ~c_xfs.KNOWN_RO_COMPAT
    if unknown:
        return f"it has features liferaft does not know (ro_compat {unknown:#x})"
    if superblock.incompat & Incompat.NEEDS_REPAIR:
        return "it is marked as damaged: run xfs_repair"
    return ""
