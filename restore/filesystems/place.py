"""Where a filesystem says it lies on the disk: the one thing in it that is wrong after its partition was moved.

NTFS and FAT keep the partition's first sector in their boot sector (HiddenSectors) and in a copy of it, exFAT in both
boot regions, with a checksum. Boot code that the BIOS starts reads the disk by this number; Windows and Linux do not
look at it. It is corrected where it was right before; a number that fits nothing is left alone and said.

Structures: Microsoft's FAT specification 1.03 section 3 and exFAT specification section 3; NTFS: ntfs-3g's layout.h.
"""

import struct

from core.errors import DamagedError
from images.filesystems.c_exfat import BOOT_SECTORS, checksum, sector_size_of
from images.filesystems.c_exfat import MAGIC as EXFAT_MAGIC
from images.filesystems.c_ntfs import MAGIC as NTFS_MAGIC
from images.filesystems.c_ntfs import parse_boot_sector
from images.model.layout import FilesystemKind
from images.sources import BlockSource
from restore.filesystems.patches import Correction, Patch
from restore.planning.abilities import RELOCATABLE

_SECTOR = 512
#: HiddenSectors, 32 bits: all boot sectors that descend from DOS.
_HIDDEN_AT = 0x1C
#: BPB_BkBootSec of FAT32.
_FAT_COPY_AT = 0x32
#: PartitionOffset of exFAT, 64 bits.
_EXFAT_OFFSET_AT = 0x40


def corrected_place(source: BlockSource, kind: FilesystemKind, old_lba: int, new_lba: int) -> Correction:
    """What to write so that the filesystem names its new place.

    Args:
        source: the volume.
        old_lba, new_lba: the partition's first sector before and now, each in sectors of its own disk.

    Raises:
        DamagedError: the volume does not hold a filesystem of that kind.
    """
    if kind is FilesystemKind.NTFS:
        return _of_ntfs(source, old_lba, new_lba)
    if kind is FilesystemKind.EXFAT:
        return _of_exfat(source, old_lba, new_lba)
    if kind in RELOCATABLE:
        return _of_fat(source, kind, old_lba, new_lba)
    return Correction()


def _of_ntfs(source: BlockSource, old_lba: int, new_lba: int) -> Correction:
    sector = source.read_at(0, _SECTOR)
    if sector[3:11] != NTFS_MAGIC:
        raise DamagedError(f"The boot sector of the NTFS volume begins with {sector[3:11]!r}, not with {NTFS_MAGIC!r}.")
    boot = parse_boot_sector(sector)
    # Behind the volume's own sectors; and ntfsresize leaves those short and writes it to the last of the partition.
    last = source.size // boot.sector_size * boot.sector_size - boot.sector_size
    copies = [
        place
        for place in dict.fromkeys((boot.size, last))
        if 0 < place <= source.size - _SECTOR and source.read_at(place, _SECTOR)[3:11] == NTFS_MAGIC
    ]
    correction = _hidden(source, (*copies, 0), old_lba, new_lba)
    missing = () if copies else (f"NTFS has no copy of its boot sector at byte {boot.size}",)
    return Correction(correction.patches, (*correction.warnings, *missing))


def _of_fat(source: BlockSource, kind: FilesystemKind, old_lba: int, new_lba: int) -> Correction:
    sector = source.read_at(0, _SECTOR)
    (sector_size,) = struct.unpack_from("<H", sector, 11)
    if sector[0] not in (0xEB, 0xE9) or sector_size not in (512, 1024, 2048, 4096):
        raise DamagedError(f"The boot sector of the {kind} volume is none: sectors of {sector_size} bytes.")
    copies: list[int] = []
    if kind is FilesystemKind.FAT32:
        (reserved,) = struct.unpack_from("<H", sector, 14)
        (copy,) = struct.unpack_from("<H", sector, _FAT_COPY_AT)
        # Microsoft's specification allows no other sector than 6; 0 and 0xFFFF say that there is none.
        if 0 < copy < reserved and source.read_at(copy * sector_size + 510, 2) == b"\x55\xaa":
            copies.append(copy * sector_size)
    return _hidden(source, (*copies, 0), old_lba, new_lba)


def _hidden(source: BlockSource, places: tuple[int, ...], old_lba: int, new_lba: int) -> Correction:
    """The boot sectors at ``places`` (bytes) with the new number, those that had the old one.

    The field has 32 bits: of a partition behind 2 TiB it keeps the lower ones.
    """
    old, new = old_lba & 0xFFFFFFFF, new_lba & 0xFFFFFFFF
    patches: list[Patch] = []
    warnings: list[str] = []
    for place in places:
        (found,) = struct.unpack("<I", source.read_at(place + _HIDDEN_AT, 4))
        if found == new:
            continue
        if found == old:
            patches.append(Patch(place + _HIDDEN_AT, struct.pack("<I", new)))
        elif found:
            # 0 says nothing: a filesystem that was made in a file, or by a tool that does not care.
            warnings.append(
                f"the boot sector at byte {place} says that the partition started at sector {found}, but it started "
                f"at {old_lba}: left as it is"
            )
    return Correction(tuple(patches), tuple(warnings))


def _of_exfat(source: BlockSource, old_lba: int, new_lba: int) -> Correction:
    sector = source.read_at(0, _SECTOR)
    if sector[3:11] != EXFAT_MAGIC:
        raise DamagedError(f"The boot sector of the exFAT volume begins with {sector[3:11]!r}.")
    sector_size = sector_size_of(sector)
    patches: list[Patch] = []
    warnings: list[str] = []
    # The copy first: should the power fail in between, the main region is still sound and with it the volume.
    for number, name in ((1, "backup"), (0, "main")):
        start = number * BOOT_SECTORS * sector_size
        if start + BOOT_SECTORS * sector_size > source.size:
            raise DamagedError(f"The {name} boot region of the exFAT volume does not fit its {source.size} bytes.")
        region = bytearray(source.read_at(start, BOOT_SECTORS * sector_size))
        summed = (BOOT_SECTORS - 1) * sector_size
        if region[summed:] != _sums(bytes(region[:summed]), sector_size):
            warnings.append(f"the {name} boot region of exFAT does not match its checksum: left as it is")
            continue
        (found,) = struct.unpack_from("<Q", region, _EXFAT_OFFSET_AT)
        if found == new_lba or not found:
            continue
        if found != old_lba:
            warnings.append(
                f"the {name} boot region of exFAT says that the partition started at sector {found}, but it started "
                f"at {old_lba}: left as it is"
            )
            continue
        struct.pack_into("<Q", region, _EXFAT_OFFSET_AT, new_lba)
        region[summed:] = _sums(bytes(region[:summed]), sector_size)
        patches.append(Patch(start, bytes(region)))
    return Correction(tuple(patches), tuple(warnings))


def _sums(region: bytes, sector_size: int) -> bytes:
    """The twelfth sector: the checksum of the other eleven, over and over."""
    return struct.pack("<I", checksum(region)) * (sector_size // 4)
