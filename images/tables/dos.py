"""The reader of dos partition tables: LBA 0 and what ``boot_records.py`` finds behind it.

All LBAs are counted in the disk's logical sectors, also on disks with 4096-byte sectors; CHS fields are kept, not
believed. Logical partitions are numbered from 5 in the order of the chain, as the kernel does.
"""

import struct

import msgspec

from core.errors import RefusedError
from images.model.layout import BootRecord, Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_dos
from images.tables.boot_records import partition_of, read_chain
from images.tables.damage import damaged, refuse_overlaps
from images.tables.dos_bytes import dos_pieces


def read_dos(source: BlockSource) -> PartitionTable | None:
    """The dos table in LBA 0, or None when LBA 0 holds none.

    A boot record counts as a table by the kernel's rule (every boot flag is 0 or 0x80) and libblkid's
    (it is not the boot sector of a FAT, exFAT or NTFS volume). A record without entries and
    without a disk signature is boot code, not a table.

    Raises:
        DamagedError: a partition lies outside the disk or in another one, or the chain of logical
            partitions is broken.
    """
    record = source.read_at(0, c_dos.RECORD_SIZE)
    entries = c_dos.parse_entries(record)
    if record[c_dos.MARK_OFFSET :] != c_dos.MARK or any(entry.status not in (0, c_dos.ACTIVE) for entry in entries):
        return None
    if is_volume_boot_sector(record):
        return None
    signature = struct.unpack_from("<I", record, c_dos.BOOT_CODE_SIZE)[0]
    if not signature and not any(entry.type or entry.count for entry in entries):
        return None
    notes: list[str] = []
    primary = _primary(source, entries, notes)
    logical: list[Partition] = []
    records: list[BootRecord] = []
    for extended in primary:
        if extended.role is PartitionRole.EXTENDED:
            chain = read_chain(source, extended, 5 + len(logical))
            logical += chain.partitions
            records += chain.records
            notes += chain.notes
    table = PartitionTable(
        kind=TableKind.DOS,
        identifier=f"0x{signature:08x}",
        partitions=(*primary, *logical),
        notes=tuple(notes),
    )
    return _with_what_is_odd(source, table, record, tuple(records))


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


def _primary(source: BlockSource, entries: list[c_dos.Entry], notes: list[str]) -> list[Partition]:
    sectors = source.size // source.sector_size
    partitions = []
    for number, entry in enumerate(entries, start=1):
        if not entry.used:
            if entry.type or entry.count:
                notes.append(f"entry {number} has type 0x{entry.type:02x} and {entry.count} sectors: unused")
            continue
        if entry.start == 0 or entry.start + entry.count > sectors:
            found = f"{entry.count} sectors from {entry.start}"
            where = c_dos.entry_offset(number - 1) + 8
            raise damaged(source, where, f"partition {number}", f"inside {sectors} sectors", found)
        role = PartitionRole.PRIMARY
        if entry.extended:
            role = PartitionRole.EXTENDED
        elif entry.type == c_dos.ESP_TYPE:
            role = PartitionRole.ESP
        partitions.append(partition_of(number, entry, entry.start, role))
    refuse_overlaps(source, c_dos.TABLE_OFFSET, partitions)
    return partitions


def _with_what_is_odd(
    source: BlockSource, table: PartitionTable, record: bytes, records: tuple[BootRecord, ...]
) -> PartitionTable:
    """The table with its records kept as bytes, where the partitions alone would give others."""
    sector_size = source.sector_size
    tail = record[c_dos.BOOT_CODE_SIZE :]
    try:
        pieces = {piece.offset: piece.data for piece in dos_pieces(table, source.size, sector_size)}
    except RefusedError:
        # No rule of ours places its boot records: they are kept where they are.
        return msgspec.structs.replace(table, mbr=tail.hex(), records=records)
    usual = pieces.pop(c_dos.BOOT_CODE_SIZE)
    as_made = {offset: data[: c_dos.RECORD_SIZE].hex() for offset, data in pieces.items()}
    odd = as_made != {record.lba * sector_size: record.content for record in records}
    return msgspec.structs.replace(
        table, mbr="" if tail == usual else tail.hex(), records=records if odd and records else ()
    )
