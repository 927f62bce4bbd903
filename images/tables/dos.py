"""The reader of dos partition tables: primary, extended and the chain of logical partitions.

All LBAs are counted in the disk's logical sectors, also on disks with 4096-byte sectors; CHS
fields are not read. Logical partitions are numbered from 5 in the order of the chain, as the kernel does.
"""

import struct

import msgspec

from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables.damage import damaged, refuse_overlaps

_ENTRY = struct.Struct("<B3xB3xII")
_TABLE_OFFSET = 446
_EXTENDED_TYPES = frozenset({0x05, 0x0F, 0x85})
_ESP_TYPE = 0xEF

#: Links of a chain that are followed at most. Linux names at most 256 partitions of a disk.
MAX_LOGICAL = 256


class _Entry(msgspec.Struct, frozen=True):
    """One of the four entries of a boot record, not yet judged. ``offset``: bytes on the disk."""

    offset: int
    status: int
    type: int
    start: int
    count: int

    @property
    def used(self) -> bool:
        return self.type != 0 and self.count != 0

    @property
    def extended(self) -> bool:
        return self.used and self.type in _EXTENDED_TYPES


def read_dos(source: BlockSource) -> PartitionTable | None:
    """The dos table in LBA 0, or None when LBA 0 holds none.

    A boot record counts as a table by the kernel's rule (every boot flag is 0 or 0x80) and libblkid's
    (it is not the boot sector of a FAT, exFAT or NTFS volume). A record without entries and
    without a disk signature is boot code, not a table.

    Raises:
        DamagedError: a partition lies outside the disk or in another one, or the chain of logical
            partitions is broken.
    """
    sector = source.read_at(0, 512)
    entries = _entries(sector, 0)
    if sector[510:] != b"\x55\xaa" or any(entry.status not in (0, 0x80) for entry in entries):
        return None
    if is_volume_boot_sector(sector):
        return None
    signature = struct.unpack_from("<I", sector, 440)[0]
    if not signature and not any(entry.type or entry.count for entry in entries):
        return None
    notes: list[str] = []
    primary = _primary(source, entries, notes)
    logical: list[Partition] = []
    for extended in primary:
        if extended.role is PartitionRole.EXTENDED:
            logical += _logical(source, extended, 5 + len(logical), notes)
    return PartitionTable(
        kind=TableKind.DOS,
        identifier=f"0x{signature:08x}",
        partitions=(*primary, *logical),
        notes=tuple(notes),
    )


def is_volume_boot_sector(sector: bytes) -> bool:
    """Whether LBA 0 is the boot sector of a FAT, exFAT or NTFS volume (a disk without a table).

    FAT by its BIOS parameter block (Microsoft's FAT specification 1.03, section 3.1), since its
    OEM name is free text. Boot code such as GRUB's leaves these fields zero.
    """
    if sector[3:11] in (b"NTFS    ", b"EXFAT   "):
        return True
    sector_size, per_cluster, reserved, fats = struct.unpack_from("<HBHB", sector, 11)
    sectors16, media, fat16_size = struct.unpack_from("<HBH", sector, 19)
    sectors32, fat32_size = struct.unpack_from("<II", sector, 32)
    return (
        sector[0] in (0xEB, 0xE9)
        and sector_size in (512, 1024, 2048, 4096)
        and per_cluster.bit_count() == 1
        and reserved > 0
        and fats in (1, 2)
        and media >= 0xF0
        and bool(sectors16 or sectors32)
        and bool(fat16_size or fat32_size)
    )


def _entries(sector: bytes, lba_offset: int) -> list[_Entry]:
    offsets = [_TABLE_OFFSET + 16 * index for index in range(4)]
    return [_Entry(lba_offset + offset, *_ENTRY.unpack_from(sector, offset)) for offset in offsets]


def _primary(source: BlockSource, entries: list[_Entry], notes: list[str]) -> list[Partition]:
    sectors = source.size // source.sector_size
    partitions = []
    for number, entry in enumerate(entries, start=1):
        if not entry.used:
            if entry.type or entry.count:
                notes.append(f"entry {number} has type 0x{entry.type:02x} and {entry.count} sectors: unused")
            continue
        if entry.start == 0 or entry.start + entry.count > sectors:
            found = f"{entry.count} sectors from {entry.start}"
            raise damaged(source, entry.offset + 8, f"partition {number}", f"inside {sectors} sectors", found)
        role = PartitionRole.PRIMARY
        if entry.extended:
            role = PartitionRole.EXTENDED
        elif entry.type == _ESP_TYPE:
            role = PartitionRole.ESP
        partitions.append(_partition(number, entry, entry.start, role))
    refuse_overlaps(source, _TABLE_OFFSET, partitions)
    return partitions


def _logical(source: BlockSource, extended: Partition, number: int, notes: list[str]) -> list[Partition]:
    """The partitions in the chain of extended boot records inside ``extended``."""
    partitions: list[Partition] = []
    seen: set[int] = set()
    link = extended.start_lba
    while True:
        if link in seen or len(seen) >= MAX_LOGICAL:
            offset = link * source.sector_size
            raise damaged(source, offset, "chain of logical partitions", f"at most {MAX_LOGICAL} links, no loop", link)
        seen.add(link)
        offset = link * source.sector_size
        sector = source.read_at(offset, 512)
        if sector[510:] != b"\x55\xaa":
            if link != extended.start_lba:
                raise damaged(source, offset + 510, "signature of a boot record", "55aa", sector[510:].hex())
            notes.append(f"the extended partition {extended.number} has no boot record: it is empty")
            return partitions
        entries = _entries(sector, offset)
        if any(entry.used for entry in entries[2:]):
            notes.append(f"the boot record at LBA {link} has more than two entries; the others are not partitions")
        for entry in (entry for entry in entries[:2] if entry.used and not entry.extended):
            start = link + entry.start
            if entry.start == 0 or start + entry.count > extended.end_lba:
                expected = f"inside the extended partition, LBA {extended.start_lba} to {extended.end_lba}"
                found = f"{entry.count} sectors from {start}"
                raise damaged(source, entry.offset + 8, f"partition {number}", expected, found)
            partitions.append(_partition(number, entry, start, PartitionRole.LOGICAL))
            number += 1
        links = [entry for entry in entries[:2] if entry.extended]
        if not links:
            refuse_overlaps(source, _TABLE_OFFSET, partitions)
            return partitions
        link = extended.start_lba + links[0].start
        if link >= extended.end_lba:
            expected = f"below LBA {extended.end_lba}, the end of the extended partition"
            raise damaged(source, links[0].offset + 8, "next boot record", expected, link)


def _partition(number: int, entry: _Entry, start: int, role: PartitionRole) -> Partition:
    return Partition(
        id=f"part{number}",
        number=number,
        start_lba=start,
        sector_count=entry.count,
        type=f"0x{entry.type:02x}",
        role=role,
        active=entry.status == 0x80,
    )
