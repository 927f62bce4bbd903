"""The filesystem: what lies in a partition or on a device of the stack. A fact, not a reader."""

from enum import StrEnum

import msgspec


class FilesystemKind(StrEnum):
    """Filesystems and containers liferaft knows by name; ``unknown`` is captured whole."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    FAT12 = "fat12"
    FAT16 = "fat16"
    FAT32 = "fat32"
    EXFAT = "exfat"
    NTFS = "ntfs"
    XFS = "xfs"
    BTRFS = "btrfs"
    F2FS = "f2fs"
    HFSPLUS = "hfsplus"
    APFS = "apfs"
    JFS = "jfs"
    NILFS2 = "nilfs2"
    REISERFS = "reiserfs"
    REISER4 = "reiser4"
    MINIX = "minix"
    SWAP = "swap"
    UNKNOWN = "unknown"


class MemberKind(StrEnum):
    """What a device holds that something else is built on, by libblkid's names: a ``Filesystem.detail``."""

    LUKS = "crypto_LUKS"
    LVM = "LVM2_member"
    MD = "linux_raid_member"
    BCACHE = "bcache"


class Filesystem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies in a partition or on another device.

    Attributes:
        kind: the filesystem; ``unknown`` when liferaft has no reader for it.
        detail: libblkid's or the reader's name for it (``ntfs``, ``crypto_LUKS``), empty for none.
        uuid, label: as the filesystem spells them.
        block_size: bytes of an allocation unit; 0 when unknown.
        size: bytes the filesystem claims; 0 when unknown.
    """

    kind: FilesystemKind
    detail: str = ""
    uuid: str = ""
    label: str = ""
    block_size: int = 0
    size: int = 0
