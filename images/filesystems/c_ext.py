"""The superblock of ext2, ext3 and ext4, and what follows from it (kernel: fs/ext4/ext4.h,
Documentation/filesystems/ext4/). Parsing and arithmetic only; ``ext.py`` decides what to believe.
"""

import struct
from enum import IntFlag

import msgspec

from images.model.layout import FilesystemKind

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_SIZE = 1024
MAGIC = 0xEF53

STATE_VALID = 0x1
STATE_ERROR = 0x2
STATE_ORPHANS = 0x4
CHECKSUM_CRC32C = 1


class Compat(IntFlag):
    """Features a reader may ignore; only those that matter here are named."""

    HAS_JOURNAL = 0x4
    LAZY_BG = 0x40
    SPARSE_SUPER2 = 0x200
    STABLE_INODES = 0x800


class Incompat(IntFlag):
    """Features a reader must know, as far as liferaft does."""

    FILETYPE = 0x2
    RECOVER = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENTS = 0x40
    BIT64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    DIRDATA = 0x1000
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """Features a writer must know, as far as liferaft does: some change what the bitmaps mean."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    BTREE_DIR = 0x4
    HUGE_FILE = 0x8
    GDT_CSUM = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    READONLY = 0x1000
    PROJECT = 0x2000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


KNOWN_INCOMPAT = sum(Incompat)
KNOWN_RO_COMPAT = sum(RoCompat)
_EXT3_INCOMPAT = Incompat.FILETYPE | Incompat.RECOVER | Incompat.META_BG | Incompat.JOURNAL_DEV
_EXT3_RO_COMPAT = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR

#: Offset in the superblock and struct format of every field that is read.
_FIELDS = {
    "inodes_count": (0, "I"),
    "blocks_count_lo": (4, "I"),
    "free_inodes": (16, "I"),
    "first_data_block": (20, "I"),
    "log_block_size": (24, "I"),
    "log_cluster_size": (28, "I"),
    "blocks_per_group": (32, "I"),
    "clusters_per_group": (36, "I"),
    "inodes_per_group": (40, "I"),
    "magic": (56, "H"),
    "state": (58, "H"),
    "rev_level": (76, "I"),
    "rev_inode_size": (88, "H"),
    "compat": (92, "I"),
    "incompat": (96, "I"),
    "ro_compat": (100, "I"),
    "uuid": (104, "16s"),
    "volume_name": (120, "16s"),
    "reserved_gdt_blocks": (206, "H"),
    "journal_inode": (224, "I"),
    "rev_desc_size": (254, "H"),
    "first_meta_bg": (260, "I"),
    "blocks_count_hi": (336, "I"),
    "mmp_block": (360, "Q"),
    "log_groups_per_flex": (372, "B"),
    "checksum_type": (373, "B"),
    "backup_group_a": (588, "I"),
    "backup_group_b": (592, "I"),
    "checksum_seed": (624, "I"),
    "checksum": (1020, "I"),
}


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """The fields read from a superblock, named as the kernel names them without ``s_``.

    The properties are believable only after ``ext.py`` has checked the bounds.
    """

    inodes_count: int
    blocks_count_lo: int
    free_inodes: int
    first_data_block: int
    log_block_size: int
    log_cluster_size: int
    blocks_per_group: int
    clusters_per_group: int
    inodes_per_group: int
    magic: int
    state: int
    rev_level: int
    rev_inode_size: int
    compat: int
    incompat: int
    ro_compat: int
    uuid: bytes
    volume_name: bytes
    reserved_gdt_blocks: int
    journal_inode: int
    rev_desc_size: int
    first_meta_bg: int
    blocks_count_hi: int
    mmp_block: int
    log_groups_per_flex: int
    checksum_type: int
    backup_group_a: int
    backup_group_b: int
    checksum_seed: int
    checksum: int

    @property
    def kind(self) -> FilesystemKind:
        """ext2, ext3 or ext4 by the features in use, as libblkid draws the line."""
        if self.incompat & ~_EXT3_INCOMPAT or self.ro_compat & ~_EXT3_RO_COMPAT:
            return FilesystemKind.EXT4
        return FilesystemKind.EXT3 if self.compat & Compat.HAS_JOURNAL else FilesystemKind.EXT2

    @property
    def blocks_count(self) -> int:
        return self.blocks_count_lo | (self.blocks_count_hi << 32 if self.incompat & Incompat.BIT64 else 0)

    @property
    def block_size(self) -> int:
        """Bytes."""
        return 1024 << self.log_block_size

    @property
    def cluster_ratio(self) -> int:
        """Blocks to one bit of a block bitmap; 1 without bigalloc."""
        if not self.ro_compat & RoCompat.BIGALLOC:
            return 1
        return 1 << (self.log_cluster_size - self.log_block_size)

    @property
    def bits_per_group(self) -> int:
        """Meaningful bits of a block bitmap."""
        return self.clusters_per_group if self.ro_compat & RoCompat.BIGALLOC else self.blocks_per_group

    @property
    def group_count(self) -> int:
        return -(-(self.blocks_count - self.first_data_block) // self.blocks_per_group)

    @property
    def inode_size(self) -> int:
        """Bytes."""
        return self.rev_inode_size if self.rev_level else 128

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    @property
    def descriptor_size(self) -> int:
        """Bytes of a group descriptor."""
        return self.rev_desc_size if self.incompat & Incompat.BIT64 else 32

    @property
    def descriptors_per_block(self) -> int:
        return self.block_size // self.descriptor_size

    @property
    def descriptor_blocks(self) -> int:
        """Blocks of one copy of the descriptor table."""
        return -(-self.group_count // self.descriptors_per_block)

    @property
    def checks_descriptors(self) -> bool:
        """Whether descriptors carry checksums, and with them the flag that a bitmap was never written."""
        return bool(self.ro_compat & (RoCompat.GDT_CSUM | RoCompat.METADATA_CSUM))

    def first_block(self, group: int) -> int:
        """The first block of a group."""
        return self.first_data_block + group * self.blocks_per_group

    def superblock_block(self, group: int) -> int:
        """Where a group's copy of the superblock lies, if it has one.

        With bigalloc and 1 KiB blocks group 0 starts at block 0, the superblock stays in block 1.
        """
        shifted = group == 0 and self.block_size == 1024 and self.first_data_block == 0
        return self.first_block(group) + shifted

    def has_superblock(self, group: int) -> bool:
        """Whether a group holds a copy of the superblock (e2fsprogs: lib/ext2fs/closefs.c)."""
        if group == 0:
            return True
        if self.compat & Compat.SPARSE_SUPER2:
            return group in (self.backup_group_a, self.backup_group_b)
        if group == 1 or not self.ro_compat & RoCompat.SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    @property
    def old_descriptor_blocks(self) -> int:
        """Blocks behind each copy of the superblock: descriptors and what is reserved for more of them."""
        if self.incompat & Incompat.META_BG:
            return self.first_meta_bg
        return self.descriptor_blocks + self.reserved_gdt_blocks

    def in_meta_group(self, group: int) -> bool:
        """Whether a group's descriptors lie in its meta group instead of behind the superblock."""
        return bool(self.incompat & Incompat.META_BG) and group // self.descriptors_per_block >= self.first_meta_bg

    def descriptor_block(self, index: int) -> int:
        """Where the ``index``-th block of the primary descriptor table lies (ext2fs_descriptor_block_loc2)."""
        group = index * self.descriptors_per_block
        if not self.in_meta_group(group):
            return self.superblock_block(0) + 1 + index
        return self.superblock_block(group) + self.has_superblock(group)


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1


def parse_superblock(content: bytes) -> Superblock:
    """The superblock in its 1024 bytes."""
    return Superblock(
        **{name: struct.unpack_from(f"<{form}", content, offset)[0] for name, (offset, form) in _FIELDS.items()}
    )
