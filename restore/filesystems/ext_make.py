"""A fresh ext2, ext3 or ext4 like a stored one, with larger blocks: the words for mke2fs, and what could not be again.

Small filesystems (a /boot of old) have blocks of 1024 bytes, which no disk with sectors of 4096 bytes can be asked
for. Features are those of the old filesystem, by their names in ext4(5); the boot loader of the machine knows these.
"""

import struct
from uuid import UUID

from images.filesystems.c_ext import (
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Incompat,
    RoCompat,
    Superblock,
    parse_superblock,
)
from images.sources import BlockSource

#: Features that mke2fs can be told: by word of the superblock (compat, incompat, ro_compat) the name of each bit.
_COMPAT = {
    0x4: "has_journal",
    0x8: "ext_attr",
    0x10: "resize_inode",
    0x20: "dir_index",
    0x200: "sparse_super2",
    0x400: "fast_commit",
    0x800: "stable_inodes",
    0x1000: "orphan_file",
}
_INCOMPAT = {
    Incompat.FILETYPE: "filetype",
    Incompat.META_BG: "meta_bg",
    Incompat.EXTENTS: "extent",
    Incompat.BIT64: "64bit",
    Incompat.FLEX_BG: "flex_bg",
    Incompat.EA_INODE: "ea_inode",
    Incompat.CSUM_SEED: "metadata_csum_seed",
    Incompat.LARGEDIR: "large_dir",
    Incompat.INLINE_DATA: "inline_data",
}
_RO_COMPAT = {
    RoCompat.SPARSE_SUPER: "sparse_super",
    RoCompat.LARGE_FILE: "large_file",
    RoCompat.HUGE_FILE: "huge_file",
    RoCompat.GDT_CSUM: "uninit_bg",
    RoCompat.DIR_NLINK: "dir_nlink",
    RoCompat.EXTRA_ISIZE: "extra_isize",
    RoCompat.METADATA_CSUM: "metadata_csum",
}
#: Of the state, not of the filesystem: a journal to be played, a list of orphans in use.
_PASSING_INCOMPAT, _PASSING_RO_COMPAT = Incompat.RECOVER, RoCompat.ORPHAN_PRESENT | RoCompat.BTREE_DIR
_RESERVED_AT, _RESERVED_HIGH_AT, _ERRORS_AT, _MOUNT_OPTIONS_AT = 8, 340, 60, 256
_ERRORS = {1: "continue", 2: "remount-ro", 3: "panic"}
#: Default mount options that change what files can be (ext4(5), tune2fs(8) -o).
_MOUNT_OPTIONS = {0x2: "bsdgroups", 0x4: "user_xattr", 0x8: "acl"}


def doubts(source: BlockSource) -> tuple[str, ...]:
    """What the stored filesystem has that cannot be made again: reasons against, for a plan."""
    old = _superblock(source)
    incompat = old.incompat & ~(sum(_INCOMPAT) | _PASSING_INCOMPAT)
    ro_compat = old.ro_compat & ~(sum(_RO_COMPAT) | _PASSING_RO_COMPAT)
    compat = old.compat & ~sum(_COMPAT)
    words = (("compat", compat), ("incompat", incompat), ("ro_compat", ro_compat))
    return tuple(f"it has features that are not made again ({name} {bits:#x})" for name, bits in words if bits)


def mke2fs_words(source: BlockSource, sector_size: int, node: str) -> list[list[str]]:
    """The commands that make a filesystem over all of ``node`` with UUID, label and features of the stored one.

    Args:
        sector_size: of the device, in bytes.
    """
    old = _superblock(source)
    raw = source.read_at(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
    reserved = (
        struct.unpack_from("<I", raw, _RESERVED_AT)[0] | struct.unpack_from("<I", raw, _RESERVED_HIGH_AT)[0] << 32
    )
    share = min(reserved * 100 / max(old.blocks_count, 1), 50)
    errors = _ERRORS.get(struct.unpack_from("<H", raw, _ERRORS_AT)[0], "continue")
    (mounting,) = struct.unpack_from("<I", raw, _MOUNT_OPTIONS_AT)
    words = ["mke2fs", "-q", "-F", "-t", old.kind, "-b", str(max(old.block_size, sector_size))]
    words += ["-I", str(old.inode_size), "-N", str(old.inodes_count), "-m", f"{share:.2f}", "-e", errors]
    words += ["-U", str(UUID(bytes=old.uuid)) if any(old.uuid) else "clear"]
    label = old.volume_name.split(b"\0", 1)[0].decode(errors="surrogateescape")
    words += ["-L", label, "-O", ",".join(["none", *_features(old)]), "-E", "nodiscard,lazy_itable_init=0", node]
    options = [f"{'' if mounting & bit else '^'}{name}" for bit, name in _MOUNT_OPTIONS.items()]
    return [words, ["tune2fs", "-o", ",".join(options), node]]


def _features(old: Superblock) -> list[str]:
    found = [name for bit, name in _COMPAT.items() if old.compat & bit]
    found += [name for bit, name in _INCOMPAT.items() if old.incompat & bit]
    return found + [name for bit, name in _RO_COMPAT.items() if old.ro_compat & bit]


def _superblock(source: BlockSource) -> Superblock:
    return parse_superblock(source.read_at(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
