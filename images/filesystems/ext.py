"""The reader of ext2, ext3 and ext4: what they are, and whether their bitmaps can be believed.

A map is believed only of a filesystem that was unmounted or frozen cleanly, has no feature that liferaft
does not know, and whose superblock, descriptors and bitmaps agree with their checksums and counts (law 6).
"""

from uuid import UUID

from core.errors import DamagedError, DeviceError
from images.filesystems import c_ext
from images.filesystems.c_ext import Compat, Incompat, RoCompat, Superblock
from images.filesystems.checksums import CRC32C, crc
from images.filesystems.ext_activity import doubt_about_journal, doubt_about_mmp
from images.filesystems.ext_groups import check_bitmaps, read_groups, used_extents
from images.filesystems.used import UsedMap, whole
from images.model.layout import Filesystem, FilesystemKind
from images.sources import BlockSource

#: More groups than any real filesystem has (16 TiB of 1 KiB blocks: 2 Mi); bounds the memory of descriptors.
MAX_GROUPS = 1 << 22


def read_ext(source: BlockSource) -> UsedMap | None:
    """Which extents hold data; None when there is no ext superblock.

    Every block bitmap is read once here, to be believed, and once more when extents are asked for.
    """
    if source.size < c_ext.SUPERBLOCK_OFFSET + c_ext.SUPERBLOCK_SIZE:
        return None
    content = source.read_at(c_ext.SUPERBLOCK_OFFSET, c_ext.SUPERBLOCK_SIZE)
    superblock = c_ext.parse_superblock(content)
    if superblock.magic != c_ext.MAGIC:
        return None
    filesystem = Filesystem(
        kind=superblock.kind,
        detail=superblock.kind.value,
        uuid=str(UUID(bytes=superblock.uuid)) if any(superblock.uuid) else "",
        label=superblock.volume_name.split(b"\0", 1)[0].decode(errors="replace"),
    )
    damage = _damage(source, superblock, content)
    if damage:
        return whole(filesystem, source.size, f"its superblock is damaged: {damage}")
    unit = superblock.block_size * superblock.cluster_ratio
    size = superblock.blocks_count * superblock.block_size
    filesystem = Filesystem(
        kind=filesystem.kind,
        detail=filesystem.detail,
        uuid=filesystem.uuid,
        label=filesystem.label,
        block_size=unit,
        size=size,
    )
    if superblock.incompat & Incompat.JOURNAL_DEV:
        journal = Filesystem(
            kind=FilesystemKind.UNKNOWN, detail="jbd", uuid=filesystem.uuid, label=filesystem.label, size=size
        )
        return whole(journal, source.size, "it is the journal of another filesystem")
    doubt = _doubt(source, superblock)
    if doubt:
        return whole(filesystem, source.size, f"{doubt}")
    try:
        groups = read_groups(source, superblock)
        doubt = doubt_about_mmp(source, superblock)
        if not doubt and superblock.compat & Compat.HAS_JOURNAL:
            doubt = doubt_about_journal(source, superblock, groups)
        if doubt:
            return whole(filesystem, source.size, doubt)
        check_bitmaps(source, superblock, groups)
    except (DamagedError, DeviceError) as error:
        return whole(filesystem, source.size, f"{error.message.rstrip('.')}")
    return UsedMap(filesystem=filesystem, trusted=True, extents=lambda: used_extents(source, superblock, groups))


def sound_superblock(source: BlockSource) -> Superblock:
    """The superblock, checked so far that its arithmetic is safe; whether its bitmaps can be believed is not asked.

    Raises:
        DamagedError: there is none, or it cannot be believed. DeviceError: the source cannot be read.
    """
    if source.size < c_ext.SUPERBLOCK_OFFSET + c_ext.SUPERBLOCK_SIZE:
        raise DamagedError(f"A superblock of ext does not fit into {source.size} bytes.")
    content = source.read_at(c_ext.SUPERBLOCK_OFFSET, c_ext.SUPERBLOCK_SIZE)
    superblock = c_ext.parse_superblock(content)
    if superblock.magic != c_ext.MAGIC:
        raise DamagedError(
            f"The superblock of ext at byte {c_ext.SUPERBLOCK_OFFSET} has the magic number {superblock.magic:#06x}, "
            f"expected {c_ext.MAGIC:#06x}."
        )
    damage = _damage(source, superblock, content)
    if damage:
        raise DamagedError(f"The superblock of ext at byte {c_ext.SUPERBLOCK_OFFSET} is damaged: {damage}.")
    return superblock


def _damage(source: BlockSource, superblock: Superblock, content: bytes) -> str:
    """What makes the superblock unbelievable in itself; empty when nothing does.

    Behind this, all arithmetic of :class:`Superblock` is safe and bounded.
    """
    if superblock.ro_compat & RoCompat.METADATA_CSUM:
        if superblock.checksum_type != c_ext.CHECKSUM_CRC32C:
            return f"checksum type {superblock.checksum_type} is unknown"
        if crc(CRC32C, 0xFFFFFFFF, content[:1020]) != superblock.checksum:
            return "it does not match its checksum"
    if superblock.log_block_size > 6:
        return f"its block size is 1024 shifted by {superblock.log_block_size}"
    if superblock.incompat & Incompat.JOURNAL_DEV:
        return ""
    size, bigalloc = superblock.block_size, bool(superblock.ro_compat & RoCompat.BIGALLOC)
    if superblock.first_data_block != (1 if size == 1024 and not bigalloc else 0):
        return f"its first data block is {superblock.first_data_block}"
    largest_cluster = 20 if bigalloc else superblock.log_block_size
    if not superblock.log_block_size <= superblock.log_cluster_size <= largest_cluster:
        return f"its cluster size is 1024 shifted by {superblock.log_cluster_size}"
    if not 0 < superblock.bits_per_group <= 8 * size or superblock.bits_per_group % 8:
        return f"it has {superblock.bits_per_group} clusters in a group"
    if superblock.blocks_per_group != superblock.bits_per_group * superblock.cluster_ratio:
        return f"it has {superblock.blocks_per_group} blocks in a group"
    if not 128 <= superblock.inode_size <= size or superblock.inode_size.bit_count() != 1:
        return f"its inode size is {superblock.inode_size}"
    if not 0 < superblock.inodes_per_group <= 8 * size:
        return f"it has {superblock.inodes_per_group} inodes in a group"
    if not 32 <= superblock.descriptor_size <= min(size, 1024) or superblock.descriptor_size.bit_count() != 1:
        return f"its descriptors have {superblock.descriptor_size} bytes"
    if superblock.incompat & Incompat.BIT64 and superblock.descriptor_size < 64:
        return f"its descriptors have {superblock.descriptor_size} bytes"
    if superblock.blocks_count <= superblock.first_data_block:
        return f"it has {superblock.blocks_count} blocks"
    if superblock.blocks_count * size <= source.size and superblock.group_count > MAX_GROUPS:
        return f"it has {superblock.group_count} groups"
    return ""


def _doubt(source: BlockSource, superblock: Superblock) -> str:
    """Why the bitmaps of a sound superblock are not believed; empty when they are."""
    size = superblock.blocks_count * superblock.block_size
    if size > source.size:
        return f"it claims {size} bytes, but the volume has {source.size}"
    unknown = superblock.incompat & ~c_ext.KNOWN_INCOMPAT
    if unknown:
        return f"it has features liferaft does not know (incompat {unknown:#x})"
    unknown = superblock.ro_compat & ~c_ext.KNOWN_RO_COMPAT
    if unknown:
        return f"it has features liferaft does not know (ro_compat {unknown:#x})"
    if superblock.compat & Compat.LAZY_BG:
        return "it has the retired feature lazy_bg"
    if superblock.incompat & Incompat.RECOVER:
        return "its journal needs recovery: it is mounted, or was not cleanly unmounted"
    if superblock.state & c_ext.STATE_ERROR:
        return "it has recorded errors: run e2fsck"
    if not superblock.state & c_ext.STATE_VALID or superblock.state & c_ext.STATE_ORPHANS:
        return "it is mounted, or was not cleanly unmounted"
    if superblock.compat & Compat.HAS_JOURNAL and not superblock.journal_inode:
        return "its journal is on another device"
    return ""
