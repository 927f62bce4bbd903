"""The superblock, the allocation group's header and the B+tree blocks of XFS (kernel: fs/xfs/libxfs/xfs_format.h,
Documentation/filesystems/xfs/). Parsing and arithmetic only; ``xfs.py`` decides what to believe.
"""

import struct
from enum import IntFlag

import msgspec

SUPERBLOCK_SIZE = 272
MAGIC = b"XFSB"
AGF_MAGIC = b"XAGF"
AGFL_MAGIC = b"XAFL"
#: B+trees of free space by block: version 4, and version 5 with checksums.
BNO_MAGIC = b"ABTB"
BNO_CRC_MAGIC = b"AB3B"
#: Bytes of a B+tree block before its first record, without and with checksums.
BTREE_HEADER = 16
BTREE_CRC_HEADER = 56
BTREE_CRC_OFFSET = 52
SUPERBLOCK_CRC_OFFSET = 224
AGF_CRC_OFFSET = 216
AGFL_CRC_OFFSET = 32
AGFL_CRC_HEADER = 36
#: Levels of a tree that free space of 2^31 blocks can need at most (kernel: XFS_BTREE_MAXLEVELS was 9, then 8 suffice).
MAX_LEVELS = 9
NO_BLOCK = 0xFFFFFFFF

#: Bits of ``versionnum`` beside the number itself.
VERSION_NUMBER = 0x000F
VERSION_SHARED = 0x0200
VERSION_MORE = 0x8000


class Features2(IntFlag):
    """``features2``, which version 4 has when ``versionnum`` says there is more."""

    LAZY_COUNT = 0x2
    ATTR2 = 0x8
    PARENT = 0x10
    PROJECT_ID_32 = 0x80
    CRC = 0x100
    FTYPE = 0x200


class RoCompat(IntFlag):
    """Features a writer must know.

    A free-space map is the writer's business: each of these adds a structure whose blocks are taken out of the free
    space like anybody's. The kernel promises a reader of *files* that it may ignore what it does not know here; about
    the meaning of the free-space trees it promises nothing, so the unknown ones count as unknown.
    """

    FINOBT = 0x1
    RMAPBT = 0x2
    REFLINK = 0x4
    INOBT_COUNT = 0x8


class Incompat(IntFlag):
    """Features a reader must know: as far as liferaft does, none changes how free space is kept.

    Not among them: zoned (0x200) keeps file data in a section behind the blocks that the trees count.
    """

    FTYPE = 0x1
    SPARSE_INODES = 0x2
    META_UUID = 0x4
    BIG_TIME = 0x8
    NEEDS_REPAIR = 0x10
    NREXT64 = 0x20
    EXCHANGE_RANGE = 0x40
    PARENT = 0x80
    METADIR = 0x100


KNOWN_RO_COMPAT = sum(RoCompat)
KNOWN_INCOMPAT = sum(Incompat)
KNOWN_FEATURES2 = sum(Features2) - Features2.CRC.value

#: Offset in the superblock and struct format of every field that is read.
_FIELDS = {
    "magic": (0, "4s"),
    "block_size": (4, "I"),
    "blocks_count": (8, "Q"),
    "realtime_blocks": (16, "Q"),
    "uuid": (32, "16s"),
    "log_start": (48, "Q"),
    "group_blocks": (84, "I"),
    "group_count": (88, "I"),
    "log_blocks": (96, "I"),
    "version": (100, "H"),
    "sector_size": (102, "H"),
    "name": (108, "12s"),
    "block_log": (120, "B"),
    "sector_log": (121, "B"),
    "group_log": (124, "B"),
    "in_progress": (126, "B"),
    "free_blocks": (144, "Q"),
    "features2": (200, "I"),
    "ro_compat": (212, "I"),
    "incompat": (216, "I"),
    "meta_uuid": (248, "16s"),
}

_AGF_FIELDS = {
    "magic": (0, "4s"),
    "version": (4, "I"),
    "number": (8, "I"),
    "length": (12, "I"),
    "root": (16, "I"),
    "levels": (28, "I"),
    "list_first": (40, "I"),
    "list_last": (44, "I"),
    "list_count": (48, "I"),
    "free": (52, "I"),
    "longest": (56, "I"),
    "btree_blocks": (60, "I"),
    "uuid": (64, "16s"),
}


class Superblock(msgspec.Struct, frozen=True, kw_only=True):
    """The fields read from a superblock. ``log_start`` is a filesystem block number, see :meth:`block_offset`.

    The properties are believable only after ``xfs.py`` has checked the bounds.
    """

    magic: bytes
    block_size: int
    blocks_count: int
    realtime_blocks: int
    uuid: bytes
    log_start: int
    group_blocks: int
    group_count: int
    log_blocks: int
    version: int
    sector_size: int
    name: bytes
    block_log: int
    sector_log: int
    group_log: int
    in_progress: int
    free_blocks: int
    features2: int
    ro_compat: int
    incompat: int
    meta_uuid: bytes

    @property
    def number(self) -> int:
        """4 or 5."""
        return self.version & VERSION_NUMBER

    @property
    def checksummed(self) -> bool:
        return self.number == 5

    @property
    def stamp(self) -> bytes:
        """The UUID that metadata carries: it stays when the filesystem's own is changed."""
        return self.meta_uuid if self.checksummed and self.incompat & Incompat.META_UUID else self.uuid

    @property
    def lazy_count(self) -> bool:
        """Whether blocks of the free-space trees count as free (they are counted in the AGF)."""
        return self.checksummed or bool(self.version & VERSION_MORE and self.features2 & Features2.LAZY_COUNT)

    @property
    def tree_header(self) -> int:
        """Bytes before the first record of a B+tree block."""
        return BTREE_CRC_HEADER if self.checksummed else BTREE_HEADER

    @property
    def reserved_blocks(self) -> int:
        """Blocks at the start of each group that hold its four headers (one sector each)."""
        return -(-4 * self.sector_size // self.block_size)

    @property
    def list_header(self) -> int:
        """Bytes before the first entry of the free list."""
        return AGFL_CRC_HEADER if self.checksummed else 0

    @property
    def list_size(self) -> int:
        """Entries of the free list (kernel: xfs_agfl_size)."""
        return (self.sector_size - self.list_header) // 4

    def group_length(self, group: int) -> int:
        """Blocks of a group; the last one may be short."""
        return min(self.group_blocks, self.blocks_count - group * self.group_blocks)

    def group_offset(self, group: int) -> int:
        """Byte at which a group starts."""
        return group * self.group_blocks * self.block_size

    @property
    def log_group(self) -> int:
        """The group the log lies in."""
        return self.log_start >> self.group_log

    @property
    def log_group_block(self) -> int:
        """The block inside that group at which the log starts."""
        return self.log_start & ((1 << self.group_log) - 1)

    @property
    def log_offset(self) -> int:
        """Byte at which the log starts."""
        return self.group_offset(self.log_group) + self.log_group_block * self.block_size

    @property
    def log_size(self) -> int:
        """Bytes."""
        return self.log_blocks * self.block_size


class GroupHeader(msgspec.Struct, frozen=True, kw_only=True):
    """An AGF: where the tree of a group's free space starts, and what it must add up to. Numbers are blocks."""

    magic: bytes
    version: int
    number: int
    length: int
    root: int
    levels: int
    list_first: int
    list_last: int
    list_count: int
    free: int
    longest: int
    btree_blocks: int
    uuid: bytes


def parse_superblock(content: bytes) -> Superblock:
    """The superblock in its first 272 bytes."""
    return Superblock(
        **{name: struct.unpack_from(f">{form}", content, offset)[0] for name, (offset, form) in _FIELDS.items()}
    )


def parse_group_header(sector: bytes) -> GroupHeader:
    """The AGF in its sector."""
    return GroupHeader(
        **{name: struct.unpack_from(f">{form}", sector, offset)[0] for name, (offset, form) in _AGF_FIELDS.items()}
    )
