"""The reader of GUID partition tables: header and entries checked, the backup used when it must be.

A GPT counts only behind a protective MBR (an entry of type 0xee), as for the kernel and for
firmware: a GPT without one is left over from an earlier life of the disk.
"""

import struct
import zlib
from uuid import UUID

import msgspec

from core.errors import DamagedError, DeviceError
from core.units import SECTOR_SIZES
from images.model.layout import Partition, PartitionRole, PartitionTable, TableKind
from images.sources import BlockSource
from images.tables import c_gpt
from images.tables.damage import damaged, describe, refuse_overlaps

#: Bytes of an entry array that are read at most: 8192 entries of 128 bytes, far above any real disk.
MAX_ENTRIES_SIZE = 1 << 20

_ROLES = {
    c_gpt.ESP_TYPE: PartitionRole.ESP,
    c_gpt.BIOS_BOOT_TYPE: PartitionRole.BIOS_BOOT,
    c_gpt.MSR_TYPE: PartitionRole.MSR,
    c_gpt.RECOVERY_TYPE: PartitionRole.RECOVERY,
}


class _Copy(msgspec.Struct, frozen=True):
    """One of the two copies of a GPT, believed."""

    header: c_gpt.Header
    entries: tuple[tuple[int, c_gpt.Entry], ...]


def has_protective_mbr(sector: bytes) -> bool:
    """Whether LBA 0 carries the signature and an entry of type 0xee (UEFI 5.2.3)."""
    return sector[510:512] == b"\x55\xaa" and any(sector[446 + 16 * index + 4] == 0xEE for index in range(4))


def has_primary_header(source: BlockSource) -> bool:
    """Whether LBA 1 begins like a GPT header."""
    if source.size < 2 * source.sector_size:
        return False
    return source.read_at(source.sector_size, 8) == c_gpt.SIGNATURE


def read_gpt(source: BlockSource) -> PartitionTable:
    """The table of a disk whose MBR is protective.

    Raises:
        DamagedError: neither copy can be believed, or the partitions contradict each other.
    """
    _refuse_other_sector_size(source)
    sectors = source.size // source.sector_size
    primary, fault = _try_copy(source, 1)
    notes: list[str] = []
    if primary is None:
        copy, backup_fault = _try_copy(source, sectors - 1)
        if copy is None:
            raise DamagedError(
                f"{describe(source)}: neither copy of the GPT can be believed. Primary: {fault} Backup: {backup_fault}",
                hint="gdisk's recovery menu can look for a table; liferaft changes nothing on a source.",
            )
        notes.append(f"the primary GPT is damaged, the backup was used: {fault}")
    else:
        copy = primary
        notes += _notes_on_backup(source, primary)
    partitions = _partitions(source, copy, notes)
    notes += _notes_on_mbr(source)
    return PartitionTable(
        kind=TableKind.GPT,
        identifier=str(copy.header.disk_guid),
        partitions=partitions,
        first_usable_lba=copy.header.first_usable_lba,
        last_usable_lba=copy.header.last_usable_lba,
        entry_count=copy.header.entry_count,
        notes=tuple(notes),
    )


def _refuse_other_sector_size(source: BlockSource) -> None:
    """A table written for the other sector size would otherwise look like damage."""
    if has_primary_header(source):
        return
    for size in SECTOR_SIZES:
        if size != source.sector_size and source.size >= 2 * size and source.read_at(size, 8) == c_gpt.SIGNATURE:
            raise DamagedError(
                f"{describe(source)}: its GPT lies at byte {size}: it was written with sectors of {size} bytes, "
                f"but is read with sectors of {source.sector_size}.",
                hint=f"Say that its logical sector size is {size}.",
            )


def _try_copy(source: BlockSource, lba: int) -> tuple[_Copy | None, str]:
    """The copy whose header lies at ``lba``, or why it cannot be believed."""
    try:
        return _read_copy(source, lba), ""
    except (DamagedError, DeviceError) as error:
        return None, error.message


def _read_copy(source: BlockSource, lba: int) -> _Copy:
    header = _read_header(source, lba)
    offset = header.entries_lba * source.sector_size
    content = source.read_at(offset, header.entry_count * header.entry_size)
    if zlib.crc32(content) != header.entries_crc:
        raise damaged(
            source, offset, "CRC of the entries", f"{header.entries_crc:#010x}", f"{zlib.crc32(content):#010x}"
        )
    entries = ((n + 1, c_gpt.parse_entry(content, n * header.entry_size)) for n in range(header.entry_count))
    return _Copy(header, tuple((number, entry) for number, entry in entries if entry.type != c_gpt.UNUSED_TYPE))


def _read_header(source: BlockSource, lba: int) -> c_gpt.Header:
    """A header whose every bound holds, so that reading what it names is safe."""
    sectors, sector_size = source.size // source.sector_size, source.sector_size
    offset = lba * sector_size
    if not 0 < lba < sectors:
        raise damaged(source, offset, "header", f"an LBA below {sectors}", lba)
    sector = source.read_at(offset, sector_size)
    header = c_gpt.parse_header(sector)
    if header.signature != c_gpt.SIGNATURE:
        raise damaged(source, offset, "signature", c_gpt.SIGNATURE, header.signature)
    if not c_gpt.HEADER_SIZE <= header.header_size <= sector_size:
        raise damaged(source, offset + 12, "header size", f"{c_gpt.HEADER_SIZE} to {sector_size}", header.header_size)
    covered = bytearray(sector[: header.header_size])
    struct.pack_into("<I", covered, c_gpt.HEADER_CRC_OFFSET, 0)
    if zlib.crc32(covered) != header.header_crc:
        found = f"{zlib.crc32(covered):#010x}"
        raise damaged(source, offset + 16, "CRC of the header", f"{header.header_crc:#010x}", found)
    if header.my_lba != lba:
        raise damaged(source, offset + 24, "its own LBA", lba, header.my_lba)
    if not header.first_usable_lba <= header.last_usable_lba + 1 <= sectors:
        found = f"{header.first_usable_lba} to {header.last_usable_lba}"
        raise damaged(source, offset + 40, "usable LBAs", f"a range below {sectors}", found)
    if header.entry_size < c_gpt.ENTRY_SIZE or header.entry_size % 8 or header.entry_size > 4096:
        raise damaged(source, offset + 84, "size of an entry", "128 to 4096, a multiple of 8", header.entry_size)
    size = header.entry_count * header.entry_size
    if not 0 < size <= MAX_ENTRIES_SIZE:
        raise damaged(
            source, offset + 80, "number of entries", f"at most {MAX_ENTRIES_SIZE} bytes of them", header.entry_count
        )
    if not 1 < header.entries_lba < sectors or header.entries_lba * sector_size + size > source.size:
        raise damaged(source, offset + 72, "LBA of the entries", f"inside {sectors} sectors", header.entries_lba)
    return header


def _notes_on_backup(source: BlockSource, primary: _Copy) -> list[str]:
    last = source.size // source.sector_size - 1
    where = primary.header.alternate_lba
    backup, fault = _try_copy(source, where)
    if backup is None:
        return [f"the backup GPT is damaged, the primary was used: {fault}"]
    notes = []
    if where != last:
        notes.append(f"the backup GPT lies at LBA {where}, not in the last sector of the disk ({last})")
    if backup.header.disk_guid != primary.header.disk_guid or backup.entries != primary.entries:
        notes.append("the backup GPT differs from the primary, the primary was used")
    return notes


def _notes_on_mbr(source: BlockSource) -> list[str]:
    sector = source.read_at(0, 512)
    others = [sector[446 + 16 * index + 4] for index in range(4) if sector[446 + 16 * index + 4] not in (0, 0xEE)]
    if not others:
        return []
    return [f"the MBR is hybrid: it has {len(others)} entries beside the protective one; the GPT was used"]


def _partitions(source: BlockSource, copy: _Copy, notes: list[str]) -> tuple[Partition, ...]:
    sectors, header = source.size // source.sector_size, copy.header
    offset = header.entries_lba * source.sector_size
    partitions = []
    seen: set[UUID] = set()
    for number, entry in copy.entries:
        where = offset + (number - 1) * header.entry_size
        if not 1 < entry.first_lba <= entry.last_lba < sectors:
            found = f"{entry.first_lba} to {entry.last_lba}"
            raise damaged(source, where + 32, f"LBAs of partition {number}", f"a range inside {sectors} sectors", found)
        if entry.first_lba < header.first_usable_lba or entry.last_lba > header.last_usable_lba:
            notes.append(f"partition {number} reaches outside the usable LBAs of its table")
        if entry.uuid in seen:
            notes.append(f"partition {number} has the same GUID as another one: {entry.uuid}")
        seen.add(entry.uuid)
        partitions.append(
            Partition(
                id=f"part{number}",
                number=number,
                start_lba=entry.first_lba,
                sector_count=entry.last_lba - entry.first_lba + 1,
                type=str(entry.type),
                role=_ROLES.get(entry.type, PartitionRole.PRIMARY),
                uuid=entry.uuid,
                name=entry.name,
                attributes=entry.attributes,
            )
        )
    refuse_overlaps(source, offset, partitions)
    return tuple(partitions)
