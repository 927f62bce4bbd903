"""The layout: how a machine's disks are structured, with everything needed to make it again.

Facts only: no live parted or blkid object, no path. Ids (``disk0``, ``disk0-part2``) are stable
inside one document and are how other documents point here.
"""

from enum import StrEnum
from uuid import UUID

import msgspec

from core.units import to_bytes
from images.model.extents import Extent


class TableKind(StrEnum):
    """The disklabel."""

    GPT = "gpt"
    DOS = "dos"


class PartitionRole(StrEnum):
    """What a partition is to the table (dos) and to the firmware."""

    PRIMARY = "primary"
    EXTENDED = "extended"
    LOGICAL = "logical"
    ESP = "esp"
    BIOS_BOOT = "bios-boot"
    MSR = "msr"
    RECOVERY = "recovery"


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


class DiskIdentity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a disk is named: never by /dev/sdX. Empty strings where the disk does not say."""

    wwn: str = ""
    serial: str = ""
    model: str = ""
    transport: str = ""


class Filesystem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies in a partition.

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


class Partition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One partition.

    Attributes:
        id: stable in the document.
        number: as the table and the kernel count (logical ones from 5).
        start_lba, sector_count: in logical sectors of the disk.
        type: the GPT type GUID in lower case, or the dos type as ``0x83``.
        uuid: the GPT partition GUID; None on dos.
        name: the GPT name.
        name_utf16: the GPT name's 72 bytes in hex, where ``name`` does not say them all (not UTF-16, text behind its
            end).
        attributes: the GPT attribute bits.
        active: the dos boot flag (0x80).
        role: what it is for.
        filesystem: what lies in it; None in an extended partition.
    """

    id: str
    number: int
    start_lba: int
    sector_count: int
    type: str
    role: PartitionRole
    uuid: UUID | None = None
    name: str = ""
    name_utf16: str = ""
    attributes: int = 0
    active: bool = False
    filesystem: Filesystem | None = None

    @property
    def end_lba(self) -> int:
        """The first LBA behind it."""
        return self.start_lba + self.sector_count

    def extent(self, sector_size: int) -> Extent:
        """Its bytes on the disk."""
        return Extent(to_bytes(self.start_lba, sector_size), to_bytes(self.end_lba, sector_size))


class BootRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the chain through the logical partitions of a dos table, as it lay on the disk.

    Attributes:
        content: its 512 bytes in hex.
    """

    lba: int
    content: str


class PartitionTable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A partition table.

    Attributes:
        kind: the disklabel.
        identifier: the GPT disk GUID in lower case, or the dos disk signature as ``0x1234abcd``.
        first_usable_lba, last_usable_lba: inclusive, GPT only; 0 on dos.
        entry_count: GPT entries; 0 on dos.
        entry_size: bytes of a GPT entry.
        entries_lba: where the entries of the primary GPT begin.
        partitions: in order of their numbers.
        mbr: bytes 440 to 511 of LBA 0 in hex (disk signature, entries, mark), where they are not what the rest of
            this document says by itself: a hybrid MBR, another protective one, places in an old geometry.
        records: the boot records of the logical partitions in the order of their chain, under the same condition.
        notes: what the reader had to say (``the primary GPT is damaged, the backup was used``).
    """

    kind: TableKind
    identifier: str
    partitions: tuple[Partition, ...]
    first_usable_lba: int = 0
    last_usable_lba: int = 0
    entry_count: int = 0
    entry_size: int = 128
    entries_lba: int = 2
    mbr: str = ""
    records: tuple[BootRecord, ...] = ()
    notes: tuple[str, ...] = ()


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk of the layout.

    Attributes:
        path: the image file it was read from; empty for a real disk, whose node means nothing later.
        filesystem: set when the disk has no table and is one volume.
    """

    id: str
    identity: DiskIdentity
    size: int
    sector_size: int
    physical_sector_size: int = 512
    path: str = ""
    table: PartitionTable | None = None
    filesystem: Filesystem | None = None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The disks of one machine."""

    version: int = 1
    disks: tuple[Disk, ...]

    def disk(self, disk_id: str) -> Disk:
        """The disk with that id; KeyError when there is none."""
        for disk in self.disks:
            if disk.id == disk_id:
                return disk
        raise KeyError(disk_id)
