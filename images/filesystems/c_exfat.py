"""On-disk structures of exFAT: the boot region and the entries of the root directory that describe the volume.

Format: Microsoft's exFAT file system specification (sections 3, 5, 6, 7). Parsing and bounds only; what is to be
believed is decided in ``exfat.py``.
"""

import struct
from enum import IntEnum, IntFlag

import msgspec

from core.errors import DamagedError

MAGIC = b"EXFAT   "
#: Sectors of a boot region: boot sector, eight extensions, parameters, a reserved one, and the checksum.
BOOT_SECTORS = 12
#: Fields that change while the volume is in use and so are left out of the checksum: VolumeFlags, PercentInUse.
_UNCHECKED = (106, 107, 112)
_MAX_CLUSTERS = (1 << 32) - 11
_MAX_CLUSTER_SHIFT = 25
#: What a chain of the FAT ends with.
END_OF_CHAIN = 0xFFFFFFFF


class VolumeFlag(IntFlag):
    """Bits of VolumeFlags."""

    ACTIVE_FAT = 0x1
    DIRTY = 0x2
    MEDIA_FAILURE = 0x4


class EntryType(IntEnum):
    """Types of root directory entries that are read; the high bit says that an entry is in use."""

    END = 0x00
    BITMAP = 0x81
    UPCASE = 0x82
    LABEL = 0x83


class BootSector(msgspec.Struct, frozen=True, kw_only=True):
    """The boot sector, bounds checked. Offsets and sizes in bytes from the volume's start.

    Attributes:
        clusters: how many; the first has the number 2.
        heap_offset: where cluster 2 lies.
        root_cluster: the first cluster of the root directory.
    """

    sector_size: int
    cluster_size: int
    size: int
    fat_offset: int
    heap_offset: int
    clusters: int
    root_cluster: int
    flags: int
    fats: int

    def offset_of(self, cluster: int) -> int:
        """Where a cluster begins."""
        return self.heap_offset + (cluster - 2) * self.cluster_size


class Entry(msgspec.Struct, frozen=True):
    """A critical entry that owns clusters: allocation bitmap or up-case table."""

    first_cluster: int
    size: int


def serial_of(sector: bytes) -> str:
    """The volume serial number as libblkid spells it; empty when it is zero."""
    (serial,) = struct.unpack_from("<I", sector, 100)
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else ""


def sector_size_of(sector: bytes) -> int:
    """Bytes of a sector.

    Raises:
        DamagedError: not a size the format knows.
    """
    shift = sector[108]
    if not 9 <= shift <= 12:
        raise DamagedError(f"its boot sector is damaged: its sectors have 1 << {shift} bytes")
    return 1 << shift


def checksum(region: bytes) -> int:
    """The boot checksum of the first eleven sectors of a boot region (specification, figure 1)."""
    value = 0
    for index, byte in enumerate(region):
        if index not in _UNCHECKED:
            value = ((value << 31 | value >> 1) + byte) & 0xFFFFFFFF
    return value


def parse_boot_sector(sector: bytes) -> BootSector:
    """The fields in the first 512 bytes of a volume.

    Raises:
        DamagedError: one of them is outside its bounds.
    """
    total, fat_start, fat_length, heap_start, clusters, root = struct.unpack_from("<QIIIII", sector, 72)
    revision, flags, _, cluster_shift, fats = struct.unpack_from("<HHBBB", sector, 104)
    size = sector_size_of(sector)
    sector_shift = size.bit_length() - 1
    if any(sector[11:64]):
        raise DamagedError("its boot sector is damaged: fields of FAT's boot sector are not zero")
    if revision >> 8 != 1:
        raise DamagedError(f"its revision {revision >> 8}.{revision & 0xFF:02} is unknown")
    if cluster_shift > _MAX_CLUSTER_SHIFT - sector_shift:
        raise DamagedError(f"its boot sector is damaged: its clusters have 1 << {cluster_shift} sectors")
    if fats not in (1, 2):
        raise DamagedError(f"its boot sector is damaged: it has {fats} FATs")
    if not 0 < clusters <= _MAX_CLUSTERS or not 2 <= root < clusters + 2:
        raise DamagedError(f"its boot sector is damaged: root directory at cluster {root} of {clusters}")
    if fat_start < 2 * BOOT_SECTORS or fat_length * size < (clusters + 2) * 4:
        raise DamagedError(f"its boot sector is damaged: FAT of {fat_length} sectors at {fat_start}")
    if heap_start < fat_start + fat_length * fats or heap_start + (clusters << cluster_shift) > total:
        raise DamagedError(f"its boot sector is damaged: {clusters} clusters from sector {heap_start} of {total}")
    return BootSector(
        sector_size=size,
        cluster_size=size << cluster_shift,
        size=total * size,
        fat_offset=fat_start * size,
        heap_offset=heap_start * size,
        clusters=clusters,
        root_cluster=root,
        flags=flags,
        fats=fats,
    )
